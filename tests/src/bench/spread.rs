//! The statistics: few, and none that assumes what the noise looks like.

use anyhow::{Result, ensure};

/// Repeated measurements of one thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// As many are below as above. One neighbour's burst of work does not move it, unlike a mean.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// A quarter is below.
    pub lower_quartile: f64,
    /// A quarter is above.
    pub upper_quartile: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Of these measurements, in any order.
    ///
    /// # Errors
    /// If there are none, or one is not a number.
    pub fn of(samples: &[f64]) -> Result<Self> {
        ensure!(!samples.is_empty(), "a spread of no measurements");
        ensure!(samples.iter().all(|sample| sample.is_finite()), "a measurement that is not a number: {samples:?}");
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Ok(Self {
            median: quantile(&sorted, 0.5),
            min: sorted[0],
            lower_quartile: quantile(&sorted, 0.25),
            upper_quartile: quantile(&sorted, 0.75),
            max: sorted[sorted.len() - 1],
        })
    }
}

impl Spread {
    /// The same in another unit.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let Self { median, min, lower_quartile, upper_quartile, max } = *self;
        Self {
            median: median * factor,
            min: min * factor,
            lower_quartile: lower_quartile * factor,
            upper_quartile: upper_quartile * factor,
            max: max * factor,
        }
    }
}

/// Linear between the neighbours (Hyndman and Fan 1996, definition 7, which is what most tools use).
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction * (sorted.len() - 1) as f64;
    let below = place.floor();
    let (low, high) = (sorted[below as usize], sorted[place.ceil() as usize]);
    low + (high - low) * (place - below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_number_in_any_order() {
        let spread = Spread::of(&[5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        let expected = Spread { median: 3.0, min: 1.0, lower_quartile: 2.0, upper_quartile: 4.0, max: 5.0 };
        assert_eq!(spread, expected);
    }

    #[test]
    fn an_even_number_lies_between_neighbours() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.lower_quartile, spread.upper_quartile), (2.5, 1.75, 3.25));
    }

    #[test]
    fn one_outlier_moves_an_extreme_and_nothing_else() {
        let spread = Spread::of(&[1.0, 1.0, 1.0, 1.0, 1000.0]).unwrap();
        assert_eq!((spread.median, spread.upper_quartile, spread.max), (1.0, 1.0, 1000.0));
    }

    #[test]
    fn one_measurement_is_all_of_it() {
        let spread = Spread::of(&[-2.5]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (-2.5, -2.5, -2.5));
    }

    #[test]
    fn nothing_and_no_number_are_refused() {
        assert!(Spread::of(&[]).is_err());
        assert!(Spread::of(&[1.0, f64::NAN]).is_err());
        assert!(Spread::of(&[f64::INFINITY]).is_err());
    }
}
