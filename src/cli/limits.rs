//! `tollgate limits`

use clap::Args;

use super::Failure;
use super::running::Running;
use crate::control::{Resources, Verb};

/// Say what the running process holds of everything that has a bound
#[derive(Debug, Args)]
pub struct Limits {
    #[command(flatten)]
    running: Running,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Limits {
    pub(super) fn run(self) -> Result<(), Failure> {
        let answer = self.running.answer(&Verb::Limits)?;
        if self.json {
            println!("{answer}");
            return Ok(());
        }
        let all: Resources =
            serde_json::from_str(&answer).map_err(|error| format!("the running process says it otherwise: {error}"))?;
        print!("{}", table(&all));
        Ok(())
    }
}

fn table(all: &Resources) -> String {
    let head = ["RESOURCE", "UNIT", "BOUND", "USED", "LOST"].map(str::to_owned);
    let rows = all.resources.iter().map(|resource| {
        let lost = resource.lost.map_or_else(|| "-".to_owned(), |lost| lost.to_string());
        [resource.name.clone(), resource.unit.clone(), resource.bound.to_string(), resource.used.to_string(), lost]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let [name, unit, bound, used, lost] = [0, 1, 2, 3, 4].map(width);
    let mut text = String::new();
    for row in &rows {
        let [a, b, c, d, e] = row;
        text += &format!("{a:<name$}  {b:<unit$}  {c:>bound$}  {d:>used$}  {e:>lost$}\n");
    }
    if all.more > 0 {
        text += &format!("and {} more: GET /api/limits\n", all.more);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Resource;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let resource = |name: &str, bound, lost| Resource {
            name: name.to_owned(),
            unit: "keys".to_owned(),
            bound,
            used: 12,
            lost,
        };
        let all = Resources {
            resources: vec![resource("limits.per_address", 1_000_000, Some(7)), resource("auth.a", 1, None)],
            more: 0,
        };
        let expected = "\
RESOURCE            UNIT    BOUND  USED  LOST
limits.per_address  keys  1000000    12     7
auth.a              keys        1    12     -
";
        assert_eq!(table(&all), expected);
    }
}
