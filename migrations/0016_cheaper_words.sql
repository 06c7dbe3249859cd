-- More than half of what it cost to store a chunk was the index of its words, where each word of each
-- chunk was put into its place by itself. Now words wait in a list and go there together: a common word of
-- a hundred chunks is one change. The list is short, so that an insert that has to empty it takes no longer
-- than one of 50 chunks did before, and a search, which goes through it for each word, hardly longer.
-- Unit of the limit: KB. Measured: tests/bench/README.md.
alter index transcript_chunks_search_idx set (fastupdate = on, gin_pending_list_limit = 256);
-- The words of a chunk do not become smaller when they are compressed: it was tried for each of them.
alter table transcript_chunks alter column search_text set storage external;
