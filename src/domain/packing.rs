//! Chunks -> API requests within the provider's limits.

use std::ops::Range;

/// What one request to a provider may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Inputs a request.
    pub inputs_max: usize,
    /// Tokens a request, all inputs together.
    pub tokens_max: usize,
}

impl RequestLimits {
    /// OpenAI's, for all its embedding models. Source: its API reference, "Create embeddings",
    /// parameter `input`.
    pub const OPENAI: Self = Self { inputs_max: 2_048, tokens_max: 300_000 };
}

/// Bytes a token, as providers estimate for their own request limits.
const BYTES_PER_TOKEN: usize = 4;

/// Tokens that `bytes` of text are taken for, rounded up.
pub fn estimate_tokens(bytes: usize) -> usize {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// Divides inputs into requests: ranges of indexes into `sizes` (bytes of each input), which
/// follow one another, cover all inputs, are never empty, and each hold as much as fits. An input
/// larger than the limit goes alone: the provider may count fewer tokens than the estimate.
pub fn pack(sizes: &[usize], limits: &RequestLimits) -> Vec<Range<usize>> {
    let mut requests = Vec::new();
    let (mut start, mut tokens) = (0, 0_usize);
    for (index, bytes) in sizes.iter().enumerate() {
        let more = estimate_tokens(*bytes);
        let full =
            index - start >= limits.inputs_max || tokens.saturating_add(more) > limits.tokens_max;
        if full && index > start {
            requests.push(start..index);
            (start, tokens) = (index, 0);
        }
        tokens = tokens.saturating_add(more);
    }
    if start < sizes.len() {
        requests.push(start..sizes.len());
    }
    requests
}

/// Two requests for one that was refused, to find the input that is to blame; `None` where one
/// input, or none, is left.
pub fn halves(range: Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
    let middle = range.start + range.len() / 2;
    (range.len() > 1).then_some((range.start..middle, middle..range.end))
}
