//! What was measured, and what becomes of it: rounds, medians and ratios.

use serde::Serialize;

use super::case::Case;

/// One contender in one round.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Round {
    /// Requests, handshakes, echoes or connections
    pub(super) count: u64,
    /// What each of them cost, in the unit of the case
    pub(super) cost: f64,
    /// The part of the CPU time that was spent in user mode
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<f64>,
    /// So many a second
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p99_micros: Option<f64>,
}

/// A figure of several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// All rounds of one contender in one case.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) case: Case,
    pub(super) name: String,
    pub(super) cost: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p99_micros: Option<Spread>,
    /// What the ratio is to
    pub(super) reference: String,
    /// Its cost over that of the reference
    pub(super) ratio: Spread,
    pub(super) rounds: Vec<Round>,
}

impl Spread {
    /// `None` where there is nothing.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { median, min, max })
    }
}

/// The median is that of the medians; how far it spreads is how far the rounds do, each against its neighbour in time.
pub(super) fn ratio(mine: &[Round], theirs: &[Round], figure: impl Fn(&Round) -> f64) -> Option<Spread> {
    let median = |rounds: &[Round]| Some(Spread::of(rounds.iter().map(&figure))?.median);
    let pairs = Spread::of(mine.iter().zip(theirs).map(|(mine, theirs)| figure(mine) / figure(theirs)))?;
    let ratio = median(mine)? / median(theirs)?;
    Some(Spread { median: ratio, min: pairs.min.min(ratio), max: pairs.max.max(ratio) })
}

/// Rows of one case, with ratios to the reference that the case prefers among those that are there.
pub(super) fn rows(case: Case, measured: Vec<(String, Vec<Round>)>) -> Vec<Row> {
    let reference = case
        .references()
        .iter()
        .find_map(|name| measured.iter().find(|(other, _)| other == name))
        .or(measured.first())
        .cloned();
    let Some((reference, theirs)) = reference else { return Vec::new() };
    let row = |(name, rounds): (String, Vec<Round>)| {
        Some(Row {
            case,
            cost: Spread::of(rounds.iter().map(|round| round.cost))?,
            rate: Spread::of(rounds.iter().filter_map(|round| round.rate)),
            p99_micros: Spread::of(rounds.iter().filter_map(|round| round.p99_micros)),
            reference: reference.clone(),
            ratio: ratio(&rounds, &theirs, |round| round.cost)?,
            name,
            rounds,
        })
    };
    measured.into_iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(costs: &[f64]) -> Vec<Round> {
        costs.iter().map(|cost| Round { cost: *cost, ..Round::default() }).collect()
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_ratio_spreads_as_far_as_its_pairs() {
        let spread = ratio(&rounds(&[2.0, 3.0, 4.0]), &rounds(&[2.0, 2.0, 2.0]), |round| round.cost);
        assert_eq!(spread, Some(Spread { median: 1.5, min: 1.0, max: 2.0 }));
        // A machine that is slower in one round is slower for both.
        let spread = ratio(&rounds(&[2.0, 20.0, 2.0]), &rounds(&[1.0, 10.0, 1.0]), |round| round.cost);
        assert_eq!(spread, Some(Spread { median: 2.0, min: 2.0, max: 2.0 }));
    }

    #[test]
    fn ratios_are_to_nginx_where_it_is_there() {
        let measured = |names: &[(&str, f64)]| {
            names.iter().map(|(name, cost)| ((*name).to_owned(), rounds(&[*cost]))).collect::<Vec<_>>()
        };
        let rows = super::rows(Case::Kept, measured(&[("tollgate", 3.0), ("haproxy", 1.0), ("nginx", 2.0)]));
        assert_eq!((rows[0].reference.as_str(), rows[0].ratio.median), ("nginx", 1.5));
        let rows = super::rows(Case::Kept, measured(&[("tollgate", 3.0), ("haproxy", 1.0)]));
        assert_eq!((rows[0].reference.as_str(), rows[0].ratio.median), ("haproxy", 3.0));
        let rows = super::rows(Case::Kept, measured(&[("tollgate", 3.0)]));
        assert_eq!((rows[0].reference.as_str(), rows[0].ratio.median), ("tollgate", 1.0));
    }
}
