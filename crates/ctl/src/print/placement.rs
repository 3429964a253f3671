//! Who does the work of the interfaces, as a table below what the doctor has found.

use anywan_core::api::{Placed, Placement};

use super::printable;
use super::table::{self, Align, Column};

const COLUMNS: [Column; 4] = [
    Column { title: "INTERFACE", align: Align::Left, spare: 0 },
    Column { title: "WORK", align: Align::Left, spare: 0 },
    Column { title: "DONE BY", align: Align::Left, spare: 0 },
    Column { title: "ANYWAN'S CHOICE", align: Align::Left, spare: 0 },
];

/// A line for each interrupt and queue; what there is to know of the CPUs above.
pub(super) fn placement_table(placement: &Placement) -> String {
    let Placement { cpus, balanced, lines } = placement;
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!("\nCPUs that may be given work: {}", printable(cpus));
    if *balanced {
        text.push_str("; irqbalance moves interrupts as it sees fit");
    }
    text.push('\n');
    let rows: Vec<_> = lines.iter().map(row).collect();
    text.push_str(&table::draw(&COLUMNS, &rows, None, None));
    text
}

fn row(placed: &Placed) -> [String; COLUMNS.len()] {
    let Placed { interface, what, now, wanted, fixed } = placed;
    let choice = match (wanted, fixed) {
        (Some(wanted), _) => printable(wanted),
        (None, true) => "cannot be moved".to_owned(),
        (None, false) => "as it is".to_owned(),
    };
    [printable(interface), printable(what), printable(now), choice]
}
