//! What the build of a vector index takes: how hard to push, and how much memory its graph needs.

/// How hard to push one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexBuild {
    /// Memory that the server may take for it, in MB of 1,024 KB.
    pub memory_mb: u32,
    /// Processes of the server that help the one that builds.
    pub workers: u32,
}

/// Bytes of a number of a half-precision vector.
const BYTES_OF_NUMBER: u64 = 2;
/// Bytes of a graph's element besides its vector, with m = 16: its own fields, and 32 neighbours of 16
/// bytes on the lowest level (pgvector 0.8: `HnswElementData`, `HnswCandidate`).
const BYTES_OF_ELEMENT: u64 = 800;

impl IndexBuild {
    /// The memory in which the graph of so many vectors has its place, in MB, about. With less, the
    /// build goes on on disk, which takes many times as long.
    pub fn memory_needed_mb(vectors: u64, dimensions: u32) -> u64 {
        let element = u64::from(dimensions) * BYTES_OF_NUMBER + BYTES_OF_ELEMENT;
        (vectors * element).div_ceil(1024 * 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_needed_follows_the_vectors_and_their_length() {
        assert_eq!(IndexBuild::memory_needed_mb(0, 1_536), 0);
        assert_eq!(IndexBuild::memory_needed_mb(100_000, 1_536), 370);
        assert!(IndexBuild::memory_needed_mb(100_000, 3_072) > 600);
    }
}
