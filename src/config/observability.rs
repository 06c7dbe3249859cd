//! What the metrics are told of the world outside.

use clap::Args;

/// What the metrics are told of the world outside.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Observability")]
pub struct ObservabilityArgs {
    /// What the provider asks for a million tokens; the metrics then tell the cost
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_PRICE_PER_MILLION_TOKENS",
        value_name = "USD",
        value_parser = parse_price
    )]
    pub price_per_million_tokens: Option<f64>,
}

fn parse_price(text: &str) -> Result<f64, String> {
    let price = text.parse::<f64>().map_err(|error| error.to_string())?;
    if price.is_finite() && price >= 0.0 {
        Ok(price)
    } else {
        Err("a price is a number from 0 on, such as 0.02".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_a_number_from_0_on() {
        assert_eq!(parse_price("0.02"), Ok(0.02));
        assert_eq!(parse_price("0"), Ok(0.0));
        for wrong in ["-1", "inf", "NaN", "2 cents", "", "0,02"] {
            assert!(parse_price(wrong).is_err(), "{wrong}");
        }
    }
}
