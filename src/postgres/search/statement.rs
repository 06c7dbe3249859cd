//! The one statement of a search, put together from the lists that it draws on.
//!
//! It is text, not a checked query, because the index is found only where the statement repeats its
//! cast and its predicate literally, and both name the model.

use super::{SearchMode, SearchRequest};
use crate::ports::Model;

/// Chunks that each list contributes: with fewer, a chunk that is good in both lists and first in
/// none was lost too often.
pub(super) const CANDIDATES: u32 = 200;
/// The k of reciprocal rank fusion. Its paper has 60, for many lists that know little; of these two
/// each is worth more at its top.
const RANK_OFFSET: u32 = 10;
/// Words of a query that are looked up, the first ones.
const WORDS_MAX: u32 = 64;
/// Chunks with one word that are looked at. A word that more of them have says little, and counts
/// only where every word is like that.
const CHUNKS_PER_WORD_MAX: u32 = 20_000;

/// What the statement puts before and behind each matching word: control characters, which it takes
/// out of the text first.
pub(super) const MATCH_BEGINS: char = '\u{2}';
pub(super) const MATCH_ENDS: char = '\u{3}';

/// The search of `request` over vectors of `model`. Binds `$1` the text, `$2` to `$5` the filters,
/// `$6` the limit, `$7` the vector; not each of them is used.
pub(super) fn statement(request: &SearchRequest, model: Option<&Model>) -> String {
    let vectors = match request.mode {
        SearchMode::Hybrid | SearchMode::Vector => model.filter(|_| request.embedding.is_some()),
        SearchMode::Text => None,
    };
    let words = matches!(request.mode, SearchMode::Hybrid | SearchMode::Text);
    let mut lists = Vec::new();
    let mut ranks = Vec::new();
    if let Some(model) = vectors {
        lists.push(nearest(request, model));
        ranks.push("select id, row_number() over (order by distance, id), false from nearest");
    }
    if words {
        lists.push(worded(request));
        ranks.push("select id, row_number() over (order by relevance desc, id), true from worded");
    }
    if ranks.is_empty() {
        ranks.push("select null::bigint, 0, true where false");
    }
    let (lists, count, ranks) = (lists.concat(), ranks.len(), ranks.join(" union all "));
    format!(
        r"
with words as materialized (
    select lexeme, ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery as query
    from unnest(to_tsvector('english', $1)) as l (lexeme, positions)
    order by positions[1] limit {WORDS_MAX}
), {lists}ranked (id, rank, by_words) as (
    {ranks}
), fused as (
    select id, (sum(1.0 / ({RANK_OFFSET} + rank)) * ({RANK_OFFSET} + 1) / {count})::float8 as score,
           min(rank) filter (where by_words) as rank_by_words
    from ranked group by id
), best as (
    -- Of two alike, the one with the words: the reader sees why it is there.
    select id, score, row_number() over (order by score desc, rank_by_words, id) as place
    from fused order by place limit $6
)
select b.score, c.user_id, c.recording_id, c.chunk_index, c.call_title, c.call_date, c.speakers,
       c.timestamp_start,
       ts_headline('english', translate(c.chunk_text, '{MATCH_BEGINS}{MATCH_ENDS}', ''),
                   (select coalesce(string_agg(query::text, ' | '), '') from words)::tsquery,
                   'HighlightAll=true, StartSel={MATCH_BEGINS}, StopSel={MATCH_ENDS}') as passage
from best b join searchable_chunks c on c.id = b.id
order by b.place",
    )
}

/// The chunks nearest to the vector, by the model's index where it has one. The inner order is the
/// index's, which `hnsw.iterative_scan` keeps only roughly, so ranks are counted over a second sort.
fn nearest(request: &SearchRequest, model: &Model) -> String {
    let filters = filters(request);
    let (dimensions, name) = (model.dimensions, model.name.replace('\'', "''"));
    format!(
        "nearest as materialized (
    select c.id, c.embedding::halfvec({dimensions}) <=> $7::halfvec({dimensions}) as distance
    from searchable_chunks c
    where c.embedding_model = '{name}'{filters}
    order by c.embedding::halfvec({dimensions}) <=> $7::halfvec({dimensions}) limit {CANDIDATES}
), "
    )
}

/// The chunks with the query's words. Each word counts by how rare it is and, with less and less
/// gain, by how often it occurs, which is what BM25 does: chunks are of one size, and `ts_rank` of
/// a single word grows with its count toward a bound. So a question finds what has most of its words,
/// or the one that matters, and none is required.
fn worded(request: &SearchRequest) -> String {
    let (filters, sets) = (filters(request), filters_of_sets(request));
    format!(
        "found as materialized (
    select w.lexeme, m.id, m.frequency
    from words w cross join lateral (
        select c.id, ts_rank(c.search_text, w.query) as frequency
        from searchable_chunks c
        where c.search_text @@ w.query{filters}
        limit {CHUNKS_PER_WORD_MAX}
    ) m
), counts as materialized (
    select lexeme, count(*) as chunks from found group by lexeme
), weights as (
    select w.lexeme, ln(1 + a.chunks::float8 / w.chunks) as weight
    from counts w, (
        select sum(chunks_expected) as chunks from chunk_sets
        where state = 'current'{sets}) a
    where w.chunks < {CHUNKS_PER_WORD_MAX} or (select min(chunks) from counts) = {CHUNKS_PER_WORD_MAX}
), worded as (
    select f.id, sum(f.frequency * w.weight) as relevance
    from found f join weights w using (lexeme)
    group by f.id order by relevance desc, f.id limit {CANDIDATES}
), "
    )
}

/// The conditions on a chunk `c`. User and recording are asked of the sets, which have an index on
/// them: where few chunks are left, the planner goes through those and not through the vectors.
fn filters(request: &SearchRequest) -> String {
    let mut filters = match filters_of_sets(request) {
        none if none.is_empty() => none,
        sets => format!(
            " and c.chunk_set_id in (select id from chunk_sets where state = 'current'{sets})"
        ),
    };
    if request.since.is_some() {
        filters += " and c.call_date >= $4";
    }
    if request.speaker.is_some() {
        filters += " and exists (select from unnest(c.speakers) as s (name)
                         where position(lower($5) in lower(s.name)) > 0)";
    }
    filters
}

fn filters_of_sets(request: &SearchRequest) -> String {
    let user = request.user_id.as_ref().map_or("", |_| " and user_id = $2");
    let recording = request.recording_id.map_or("", |_| " and recording_id = $3");
    format!("{user}{recording}")
}
