//! A table that fits: columns that can be spared go when there is no room, and the last one is
//! cut. Cells are plain text without control characters; a character is taken for one column.

/// Between columns.
const GAP: &str = "  ";

/// The last column is never narrower than this; rather, others are spared.
const LAST_MIN: usize = 12;

/// To which side cells are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) align: Align,
    /// 0: never spared; otherwise the highest goes first.
    pub(super) spare: u8,
}

/// Changes a padded cell of the column with the title given first.
pub(super) type Paint = fn(&str, &str) -> String;

/// Draws a table with a line of titles.
pub(super) fn draw<const N: usize>(
    columns: &[Column; N],
    rows: &[[String; N]],
    width: Option<usize>,
    paint: Option<Paint>,
) -> String {
    let widths: Vec<usize> = (0..N).map(|at| widest(columns[at].title, rows, at)).collect();
    let shown = fitting(columns, &widths, width);
    let titles: [String; N] = std::array::from_fn(|at| columns[at].title.to_owned());
    let mut text = line(columns, &titles, &widths, &shown, width, None);
    for row in rows {
        text.push_str(&line(columns, row, &widths, &shown, width, paint));
    }
    text
}

fn widest<const N: usize>(title: &str, rows: &[[String; N]], at: usize) -> usize {
    let cells = rows.iter().map(|row| row[at].chars().count());
    cells.chain([title.chars().count()]).max().unwrap_or(0)
}

/// The columns that there is room for.
fn fitting(columns: &[Column], widths: &[usize], width: Option<usize>) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(width) = width else { return shown };
    loop {
        let last = shown.last().map_or(0, |at| widths[*at].min(LAST_MIN));
        let others = shown.split_last().map_or(&[][..], |(_, others)| others);
        let needed: usize = others.iter().map(|at| widths[*at] + GAP.len()).sum();
        if needed + last <= width {
            return shown;
        }
        let spared = others.iter().filter(|at| columns[**at].spare > 0);
        let Some(spared) = spared.max_by_key(|at| columns[**at].spare).copied() else {
            return shown;
        };
        shown.retain(|at| *at != spared);
    }
}

fn line<const N: usize>(
    columns: &[Column; N],
    cells: &[String; N],
    widths: &[usize],
    shown: &[usize],
    width: Option<usize>,
    paint: Option<Paint>,
) -> String {
    let mut text = String::new();
    let mut used = 0;
    let Some((last, others)) = shown.split_last() else { return text };
    for at in others {
        let cell = padded(&cells[*at], widths[*at], columns[*at].align);
        let painted = paint.map_or_else(|| cell.clone(), |paint| paint(columns[*at].title, &cell));
        text.push_str(&painted);
        text.push_str(GAP);
        used += widths[*at] + GAP.len();
    }
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(used).max(1));
    text.push_str(&cut(&cells[*last], room));
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn padded(cell: &str, width: usize, align: Align) -> String {
    match align {
        Align::Left => format!("{cell:<width$}"),
        Align::Right => format!("{cell:>width$}"),
    }
}

fn cut(cell: &str, room: usize) -> String {
    if cell.chars().count() <= room {
        return cell.to_owned();
    }
    let kept: String = cell.chars().take(room.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}
