//! `tollgate-load`: drills for a gateway under load, with a verdict; and what its requests cost beside others.

mod compare;
mod drill;
mod machine;

use std::error::Error;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tollgate_load::Origin;

/// Load that knows what became of each request, and what it cost
#[derive(Debug, Parser)]
enum Command {
    /// Put a gateway under load, do something to it, and say what was lost
    Drill(drill::Drill),
    /// Compare what requests cost with nginx, HAProxy and the least that is possible on the same runtime
    Compare(compare::Compare),
    /// Serve as an origin until standard input ends
    Origin {
        /// Where the id of each POST is written
        #[arg(long)]
        record: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Drill(drill) => drill.run(),
        Command::Compare(compare) => compare.run(),
        Command::Origin { record } => serve(&record).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn serve(record: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let origin = Origin::recording(record)?;
    println!("{}", origin.addr());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
