//! The one statement of a search, put together from the lists that it draws on.
//!
//! It is text, not a checked query, because the index is found only where the statement repeats its
//! cast and its predicate literally, and both name the model.

use super::{SearchMode, SearchRequest};
use crate::ports::Model;

/// Chunks that each list contributes. A chunk below this rank of both lists is no answer.
pub(super) const CANDIDATES: u32 = 100;
/// The k of reciprocal rank fusion, from its paper.
const RANK_OFFSET: u32 = 60;
/// Words of a query that are looked up, the first ones.
const WORDS_MAX: u32 = 64;
/// Chunks with one word that are looked at. A word that more of them have says little, and counts
/// only where every word is like that.
const CHUNKS_PER_WORD_MAX: u32 = 20_000;

/// What the statement puts before and behind each matching word: control characters, which it takes
/// out of the text first.
pub(super) const MATCH_BEGINS: char = '\u{2}';
pub(super) const MATCH_ENDS: char = '\u{3}';

/// Where to look: `$2` user, `$3` recording, `$4` date, `$5` part of a speaker's name. The planner
/// knows their values, so conditions on null vanish.
const FILTERS: &str = "
          and ($2::text is null or c.user_id = $2)
          and ($3::bigint is null or c.recording_id = $3)
          and ($4::timestamptz is null or c.call_date >= $4)
          and ($5::text is null or exists (
              select from unnest(c.speakers) as s (name) where position(lower($5) in lower(s.name)) > 0))";

/// The search of `request` over vectors of `model`. Binds `$1` the text, `$2` to `$5` the filters,
/// `$6` the limit, `$7` the vector.
pub(super) fn statement(request: &SearchRequest, model: Option<&Model>) -> String {
    let vectors = match request.mode {
        SearchMode::Hybrid | SearchMode::Vector => model.filter(|_| request.embedding.is_some()),
        SearchMode::Text => None,
    };
    let words = matches!(request.mode, SearchMode::Hybrid | SearchMode::Text);
    let mut lists = Vec::new();
    let mut ranks = Vec::new();
    if let Some(model) = vectors {
        lists.push(nearest(model));
        ranks.push("select id, row_number() over (order by distance, id) as rank from nearest");
    }
    if words {
        lists.push(worded());
        ranks
            .push("select id, row_number() over (order by relevance desc, id) as rank from worded");
    }
    let (lists, count, ranks) =
        (lists.concat(), ranks.len().max(1), ranks.join("\n    union all\n    "));
    let ranks = if ranks.is_empty() { "select null::bigint, 0 where false" } else { &ranks };
    format!(
        r"
with words as materialized (
    select lexeme, ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery as query
    from unnest(to_tsvector('english', $1)) as l (lexeme, positions)
    order by positions[1] limit {WORDS_MAX}
), {lists}ranked (id, rank) as (
    {ranks}
), best as (
    select id, (sum(1.0 / ({RANK_OFFSET} + rank)) * ({RANK_OFFSET} + 1) / {count})::float8 as score
    from ranked group by id order by score desc, id limit $6
)
select b.score, c.user_id, c.recording_id, c.chunk_index, c.call_title, c.call_date, c.speakers,
       c.timestamp_start,
       ts_headline('english', translate(c.chunk_text, '{MATCH_BEGINS}{MATCH_ENDS}', ''),
                   (select coalesce(string_agg(query::text, ' | '), '') from words)::tsquery,
                   'HighlightAll=true, StartSel={MATCH_BEGINS}, StopSel={MATCH_ENDS}') as passage
from best b join searchable_chunks c on c.id = b.id
order by b.score desc, b.id",
    )
}

/// The chunks nearest to the vector, by the model's index where it has one. The inner order is the
/// index's, which `hnsw.iterative_scan` keeps only roughly, so ranks are counted over a second sort.
fn nearest(model: &Model) -> String {
    let (dimensions, name) = (model.dimensions, model.name.replace('\'', "''"));
    format!(
        "nearest as materialized (
    select c.id, c.embedding::halfvec({dimensions}) <=> $7::halfvec({dimensions}) as distance
    from searchable_chunks c
    where c.embedding_model = '{name}'{FILTERS}
    order by c.embedding::halfvec({dimensions}) <=> $7::halfvec({dimensions}) limit {CANDIDATES}
), "
    )
}

/// The chunks with the query's words. Each word counts by how rare it is and, with less and less
/// gain, by how often it occurs, which is what BM25 does: chunks are of one size, and `ts_rank` of
/// a single word grows with its count toward a bound.
fn worded() -> String {
    format!(
        "found as materialized (
    select w.lexeme, m.id, m.frequency
    from words w cross join lateral (
        select c.id, ts_rank(c.search_text, w.query) as frequency
        from searchable_chunks c
        where c.search_text @@ w.query{FILTERS}
        limit {CHUNKS_PER_WORD_MAX}
    ) m
), weights as (
    select lexeme, ln(1 + (select count(distinct id) from found)::float8 / count(*)) as weight
    from found group by lexeme
), worded as (
    select f.id, sum(f.frequency * w.weight) as relevance
    from found f join weights w using (lexeme)
    group by f.id order by relevance desc, f.id limit {CANDIDATES}
), "
    )
}
