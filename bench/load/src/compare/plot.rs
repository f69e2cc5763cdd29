//! Rows as a picture: a bar for each contender, as long as its ratio, with its spread.

use std::fmt::Write as _;

use super::figure::Row;
use super::table::number;

const WIDTH: f64 = 1000.0;
/// Where bars begin, and where one times the reference is.
const LEFT: f64 = 200.0;
const ONE: f64 = 200.0;
/// Longer bars are cut, which a gap in them shows.
const LONGEST: f64 = 2.6;
const BAR: f64 = 16.0;
const GAP: f64 = 5.0;
/// Above the bars of a case.
const HEADING: f64 = 44.0;
const TOP: f64 = 70.0;

/// An SVG document.
pub(super) fn draw(rows: &[Row], machine: &str) -> String {
    let (mut body, mut y, mut case) = (String::new(), TOP, None);
    for row in rows {
        if case != Some(row.case) {
            case = Some(row.case);
            heading(&mut body, y, row);
            y += HEADING;
        }
        bar(&mut body, y, row);
        y += BAR + GAP;
    }
    let height = y + 40.0;
    let one = LEFT + ONE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"20\" y=\"28\" font-size=\"18\" font-weight=\"bold\">What it costs, as a ratio: shorter is better</text>\n\
         <text x=\"20\" y=\"48\" fill=\"#555555\">{}</text>\n\
         <line x1=\"{one}\" y1=\"{TOP}\" x2=\"{one}\" y2=\"{}\" stroke=\"#999999\" stroke-dasharray=\"3 3\"/>\n\
         {body}</svg>\n",
        escape(machine),
        height - 30.0,
    )
}

fn heading(body: &mut String, y: f64, row: &Row) {
    // Writing to memory cannot fail.
    let _ = writeln!(
        body,
        "<text x=\"20\" y=\"{:.0}\" font-weight=\"bold\">{}: {}</text>\n\
         <text x=\"20\" y=\"{:.0}\" fill=\"#555555\">{}, as a ratio to {}</text>",
        y + 20.0,
        escape(&row.case.name()),
        escape(&row.case.title()),
        y + 36.0,
        escape(row.case.unit()),
        escape(&row.reference),
    );
}

fn bar(body: &mut String, y: f64, row: &Row) {
    let at = |ratio: f64| LEFT + ONE * ratio.min(LONGEST);
    let (end, middle) = (at(row.ratio.median), y + BAR / 2.0);
    // Writing to memory cannot fail.
    let _ = writeln!(
        body,
        "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
         <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"/>\n\
         <line x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" stroke=\"#222222\" stroke-width=\"2\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\">{:.2} × ({:.2}..{:.2}) · {}</text>",
        LEFT - 8.0,
        y + 12.5,
        escape(&row.name),
        end - LEFT,
        colour(&row.name),
        at(row.ratio.min),
        at(row.ratio.max),
        at(row.ratio.max).max(end) + 8.0,
        y + 12.5,
        row.ratio.median,
        row.ratio.min,
        row.ratio.max,
        number(row.cost.median),
    );
    if row.ratio.median > LONGEST {
        let (from, top, bottom) = (end - 24.0, y - 1.0, y + BAR + 1.0);
        let _ = writeln!(
            body,
            "<path d=\"M{from:.1} {bottom:.1} l8 {:.1} h6 l-8 {:.1} z\" fill=\"#ffffff\"/>",
            top - bottom,
            bottom - top
        );
    }
}

/// One for each peer.
fn colour(name: &str) -> &'static str {
    match name.split(',').next() {
        Some("tollgate") => "#d9822b",
        Some("nginx") => "#4c9a5b",
        Some("haproxy") => "#4a7fb5",
        _ => "#b0b0b0",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::case::Case;
    use crate::compare::figure::{self, Round};

    #[test]
    fn each_row_has_a_bar_and_long_ones_are_cut() {
        let round = |cost| vec![Round { cost, ..Round::default() }];
        let names = [("tollgate", 3.0), ("nginx", 2.0), ("floor", 200.0)];
        let measured = names.map(|(name, cost)| (name.to_owned(), round(cost))).to_vec();
        let picture = draw(&figure::rows(Case::Kept, measured), "a <machine> & more");
        assert_eq!(picture.matches("<rect x=").count(), 3);
        assert!(picture.contains("width=\"300.0\""), "1.5 times 200: {picture}");
        assert!(picture.contains("width=\"520.0\"") && picture.contains("100.00 ×"), "{picture}");
        assert_eq!(picture.matches("<path").count(), 1);
        assert!(picture.contains("a &lt;machine&gt; &amp; more"));
    }
}
