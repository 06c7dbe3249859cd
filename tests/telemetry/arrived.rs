//! The trees of spans that a collector gets from the real program, whose actors run on many threads and
//! whose spans travel in batches, in no order: rebuilt from what came, by the ids of parents.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fake_opentelemetry_collector::{ExportedSpan, FakeCollectorServer};

use super::collectors::{is_attempt, receive, run_to_the_end};
use super::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::pipeline::scene::is_call;

/// The collector keeps an attribute as what it looks like to who debugs; of what type it is, is no
/// matter here.
fn is(span: &ExportedSpan, name: &str, value: &str) -> bool {
    let kept = span.attributes.get(name).map(|kept| kept.replace('"', ""));
    kept.is_some_and(|kept| kept.contains(&format!("Value({value})")))
}

/// The attempts of a recording, in order.
fn attempts(spans: &[ExportedSpan], recording_id: i64) -> Vec<&ExportedSpan> {
    let id = recording_id.to_string();
    let of_it = |span: &&ExportedSpan| is_attempt(span) && is(span, "recording_id", &id);
    let mut attempts: Vec<&ExportedSpan> = spans.iter().filter(of_it).collect();
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    attempts
}

/// A span and all below it in the order of their beginnings: depth, name, kind, and `!` where it failed.
fn tree(spans: &[ExportedSpan], root: &ExportedSpan) -> Vec<String> {
    assert_eq!(root.parent_span_id, "", "{root:?}");
    let mut lines = Vec::new();
    walk(spans, root, 0, &mut lines);
    let of_trace = spans.iter().filter(|span| span.trace_id == root.trace_id).count();
    assert_eq!(lines.len(), of_trace, "a span of the trace hangs nowhere: {spans:#?}");
    lines
}

fn walk(spans: &[ExportedSpan], span: &ExportedSpan, depth: usize, lines: &mut Vec<String>) {
    let kind = span.kind.trim_start_matches("SPAN_KIND_").to_lowercase();
    let is_error = span.status.as_ref().is_some_and(|status| status.code == "STATUS_CODE_ERROR");
    let failed = if is_error { " !" } else { "" };
    lines.push(format!("{}{} {kind}{failed}", "  ".repeat(depth), span.name));
    let is_child = |child: &&ExportedSpan| {
        (&child.trace_id, &child.parent_span_id) == (&span.trace_id, &span.span_id)
    };
    let mut children: Vec<&ExportedSpan> = spans.iter().filter(is_child).collect();
    children.sort_by_key(|child| child.start_time_unix_nano);
    for child in children {
        walk(spans, child, depth + 1, lines);
    }
}

const GOOD: [&str; 7] = [
    "process recording consumer",
    "  load transcript client",
    "  chunk internal",
    "  open chunk set client",
    "  embeddings text-embedding-3-small client",
    "  store chunks client",
    "  complete client",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_trees_of_a_good_recording_and_of_a_retried_one_arrive_whole() {
    let mut collector = FakeCollectorServer::start().await.unwrap();
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    let met = AtomicBool::new(false);
    let is_second = is_call(22);
    fake.on(move |inputs| is_second(inputs) && !met.swap(true, Ordering::Relaxed), Reply::NaN);
    database.import(&[call(11, 3), call(22, 1)]).await;
    let mut command = serve(&database, &fake, &collector.endpoint(), &["--exit-when-idle"]);
    let running = tokio::spawn(async move { run_to_the_end(&mut command).await });
    let (mut spans, _) = receive(&mut collector, |_, _| running.is_finished()).await;
    // What came between the last look and the end is there.
    spans.extend(collector.exported_spans(0, Duration::ZERO).await);
    let (stderr, _) = running.await.unwrap();

    let [good] = attempts(&spans, 11)[..] else { panic!("one attempt: {stderr}") };
    assert_eq!(tree(&spans, good), GOOD);
    assert!(is(good, "outcome", "completed"), "{good:?}");

    let [failed, again] = attempts(&spans, 22)[..] else { panic!("two attempts: {stderr}") };
    assert_eq!(
        tree(&spans, failed),
        [
            "process recording consumer !",
            "  load transcript client",
            "  chunk internal",
            "  open chunk set client",
            "  embeddings text-embedding-3-small client !",
            // The probe, which tells whose fault it is.
            "  embeddings text-embedding-3-small client",
            "  settle client",
        ]
    );
    assert!(is(failed, "outcome", "retried"), "{failed:?}");
    assert!(is(failed, "error.type", "provider_rejects_item"), "{failed:?}");
    assert_eq!(tree(&spans, again), GOOD);
    assert!(is(again, "outcome", "completed") && is(again, "attempt", "2"), "{again:?}");
    let leads_to_the_first = again.links.iter().any(|link| link.span_id == failed.span_id);
    assert!(leads_to_the_first, "{again:?}");
}
