//! What is to be reached, and whether it is.

use std::fmt;

use serde::Serialize;

use super::case::Case;
use super::figure::{Row, Spread, ratio};

/// A goal.
struct Goal {
    case: Case,
    of: &'static str,
    /// `None` for a figure that is no ratio
    to: Option<&'static str>,
    figure: Figure,
    bound: Bound,
}

/// What of a row is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Figure {
    Cost,
    /// How many a second one core can do: the reciprocal of its cost
    PerCore,
    /// How many a second were done
    Rate,
}

#[derive(Clone, Copy, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A goal beside what was measured.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    case: Case,
    what: String,
    goal: String,
    found: Spread,
    /// `None` where this machine cannot tell
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<bool>,
}

const fn goal(case: Case, of: &'static str, to: &'static str, figure: Figure, bound: Bound) -> Goal {
    Goal { case, of, to: Some(to), figure, bound }
}

const GOALS: &[Goal] = &[
    goal(Case::Kept, "tollgate", "nginx", Figure::Cost, Bound::AtMost(1.3)),
    goal(Case::Kept, "tollgate", "haproxy", Figure::Cost, Bound::AtMost(1.3)),
    goal(Case::Kept, "tollgate", "floor", Figure::Cost, Bound::AtMost(1.05)),
    goal(Case::Logged, "tollgate", "nginx", Figure::Cost, Bound::AtMost(1.3)),
    goal(Case::Logged, "tollgate", "haproxy", Figure::Cost, Bound::AtMost(1.3)),
    goal(Case::JwtRs256, "tollgate", "haproxy", Figure::Cost, Bound::AtMost(0.55)),
    goal(Case::JwtEs256, "tollgate", "haproxy", Figure::Cost, Bound::AtMost(0.3)),
    goal(Case::JwtHs256, "tollgate", "haproxy", Figure::Cost, Bound::AtMost(1.2)),
    goal(Case::Policies, "tollgate, all policies", "tollgate, none", Figure::Cost, Bound::AtMost(1.1)),
    goal(Case::TlsFull, "tollgate", "nginx", Figure::PerCore, Bound::AtLeast(1.0)),
    goal(Case::H2, "tollgate", "nginx", Figure::PerCore, Bound::AtLeast(1.0)),
    Goal { case: Case::IdlePlain, of: "tollgate", to: None, figure: Figure::Cost, bound: Bound::AtMost(16.0) },
    Goal { case: Case::IdleTls, of: "tollgate", to: None, figure: Figure::Cost, bound: Bound::AtMost(40.0) },
    goal(Case::Routes, "tollgate, 10000 routes", "tollgate, 10 routes", Figure::Cost, Bound::AtMost(1.02)),
    goal(Case::Workers, "tollgate, 2 workers", "tollgate, 1 worker", Figure::Rate, Bound::AtLeast(1.9)),
];

/// The goals of one case that can be judged by its rows. Where load shares the cores of the proxy, throughput says more
/// of the load than of the proxy.
pub(super) fn verdicts(case: Case, rows: &[Row], cores_are_apart: bool) -> Vec<Verdict> {
    let row = |name: &str| rows.iter().find(|row| row.name == name);
    let verdict = |goal: &Goal| {
        let mine = row(goal.of)?;
        let (found, to) = match goal.to {
            None => (mine.cost, String::new()),
            Some(to) => (goal.figure.ratio(mine, row(to)?)?, format!(" / {to}")),
        };
        let unit = if goal.to.is_some() { "×" } else { case.unit() };
        let can_tell = goal.figure != Figure::Rate || cores_are_apart;
        Some(Verdict {
            case,
            what: format!("{}{to}, {}", goal.of, goal.figure.name(case)),
            goal: format!("{} {unit}", goal.bound),
            found,
            reached: can_tell.then(|| goal.bound.holds(found.median)),
        })
    };
    GOALS.iter().filter(|goal| goal.case == case).filter_map(verdict).collect()
}

impl Figure {
    fn ratio(self, mine: &Row, theirs: &Row) -> Option<Spread> {
        match self {
            Self::Cost => ratio(&mine.rounds, &theirs.rounds, |round| round.cost),
            Self::PerCore => ratio(&mine.rounds, &theirs.rounds, |round| 1.0 / round.cost),
            Self::Rate => ratio(&mine.rounds, &theirs.rounds, |round| round.rate.unwrap_or(f64::NAN)),
        }
    }

    fn name(self, case: Case) -> &'static str {
        match self {
            Self::Cost => case.unit(),
            Self::PerCore => "per second of a core",
            Self::Rate => "per second",
        }
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { median, min, max } = self.found;
        let reached = match self.reached {
            Some(true) => "reached",
            Some(false) => "NOT reached",
            None => "not to be told on this machine: load shares the proxy's cores",
        };
        let found = format!("{median:.2} ({min:.2}..{max:.2})");
        write!(f, "{:<12} {:<64} {:<20} {:>24}   {reached}", self.case.name(), self.what, self.goal, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::figure::{Round, rows};

    fn measured(case: Case, costs: &[(&str, f64)]) -> Vec<Row> {
        let round = |cost| Round { cost, rate: Some(1000.0 / cost), ..Round::default() };
        rows(case, costs.iter().map(|(name, cost)| ((*name).to_owned(), vec![round(*cost)])).collect())
    }

    #[test]
    fn each_goal_is_of_a_case_that_has_both_sides() {
        for goal in GOALS {
            let names: Vec<_> = goal.case.contenders().into_iter().map(|contender| contender.name).collect();
            assert!(names.iter().any(|name| name == goal.of), "{names:?}");
            assert!(goal.to.is_none_or(|to| names.iter().any(|name| name == to)), "{names:?}");
        }
    }

    #[test]
    fn a_goal_is_judged_by_the_median() {
        let rows = measured(Case::Kept, &[("tollgate", 12.0), ("nginx", 10.0), ("haproxy", 8.0), ("floor", 12.0)]);
        let reached: Vec<_> = verdicts(Case::Kept, &rows, true).iter().map(|verdict| verdict.reached).collect();
        assert_eq!(reached, [Some(true), Some(false), Some(true)]);
    }

    #[test]
    fn what_is_done_per_second_grows_as_the_cost_falls() {
        let rows = measured(Case::TlsFull, &[("tollgate", 50.0), ("nginx", 100.0)]);
        let verdict = &verdicts(Case::TlsFull, &rows, true)[0];
        assert_eq!((verdict.found.median, verdict.reached), (2.0, Some(true)));
    }

    #[test]
    fn throughput_is_not_judged_where_load_shares_the_cores() {
        let rows = measured(Case::Workers, &[("tollgate, 1 worker", 20.0), ("tollgate, 2 workers", 10.0)]);
        assert_eq!(verdicts(Case::Workers, &rows, true)[0].reached, Some(true));
        assert_eq!(verdicts(Case::Workers, &rows, false)[0].reached, None);
    }

    #[test]
    fn a_goal_without_its_other_side_is_left_out() {
        assert!(verdicts(Case::H2, &measured(Case::H2, &[("tollgate", 1.0)]), true).is_empty());
    }
}
