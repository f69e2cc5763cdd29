//! Rows as text.

use std::fmt::Write as _;

use super::figure::{Row, Spread};

/// One line each.
pub(super) fn rows(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let cost = spread(row.cost, number);
        let ratio = spread(row.ratio, |value| format!("{value:.2}"));
        let rate = row.rate.map(|rate| format!("{:>7.0}/s", rate.median)).unwrap_or_default();
        let p99 = row.p99_micros.map(|p99| format!("p99 {:.2} ms", p99.median / 1e3)).unwrap_or_default();
        // Writing to memory cannot fail.
        let _ = writeln!(
            text,
            "  {:<24} {cost:>28} {:<20} {ratio:>20} × {:<20} {rate:>10}  {p99}",
            row.name,
            row.case.unit(),
            row.reference,
        );
    }
    text
}

fn spread(spread: Spread, number: impl Fn(f64) -> String) -> String {
    format!("{} ({}..{})", number(spread.median), number(spread.min), number(spread.max))
}

/// As many digits as mean something.
pub(super) fn number(value: f64) -> String {
    if value.abs() < 1000.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::case::Case;
    use crate::compare::figure::{self, Round};

    #[test]
    fn a_row_says_what_it_cost_and_beside_whom() {
        let round = |cost| Round { cost, rate: Some(5.0), p99_micros: Some(1500.0), ..Round::default() };
        let measured = vec![
            ("tollgate".to_owned(), vec![round(30.0), round(31.0), round(33.0)]),
            ("nginx".to_owned(), vec![round(20.0), round(20.0), round(20.0)]),
        ];
        let text = rows(&figure::rows(Case::Kept, measured));
        let line = text.lines().next().expect("a line").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(line, "tollgate 31.0 (30.0..33.0) µs CPU/request 1.55 (1.50..1.65) × nginx 5/s p99 1.50 ms");
    }
}
