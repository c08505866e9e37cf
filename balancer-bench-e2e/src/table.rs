//! Results as Markdown.

use std::fmt::Write as _;

use crate::results::{Better, Figure, Results, Row};

/// The whole document; `plots` are figures' names with the files of their plots.
pub fn table(results: &Results, plots: &[(String, String)]) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "# Results\n\nWritten by `{}` in {} s, not by hand; [results.json](results.json) has every sample. balancerd {}, commit `{}`. \
         {}, {} CPUs of which {} and {} were used, {} MiB, Linux {}; {}.\n\n\
         Median, least and largest of {} samples.",
        results.command,
        results.took,
        results.version,
        results.commit,
        machine.processor,
        machine.cpus,
        machine.used[0],
        machine.used[1],
        machine.memory,
        machine.kernel,
        machine.tools.join(", "),
        results.repeats,
    );
    if results.disturbed > 0 {
        let _ = write!(
            text,
            " Before {} samples the machine did not become quiet.",
            results.disturbed
        );
    }
    if results
        .figures
        .iter()
        .flat_map(|figure| &figure.rows)
        .any(|row| row.noisy)
    {
        let _ = write!(
            text,
            " The machine was too noisy to compare the rows marked *noisy*: their samples lie further apart than {:.0} % of the median.",
            results.spread * 100.0
        );
    }
    text.push('\n');
    for line in &results.left_out {
        let _ = writeln!(text, "\nLeft out: {line}.");
    }
    for figure in &results.figures {
        let plot = plots.iter().find(|(name, _)| *name == figure.name);
        section(&mut text, figure, plot.map(|(_, file)| file.as_str()));
    }
    text
}

fn section(text: &mut String, figure: &Figure, plot: Option<&str>) {
    let better = match figure.better {
        Better::Less => "less is better",
        Better::More => "more is better",
    };
    let _ = writeln!(
        text,
        "\n## {}\n\nIn {}; {better}.\n",
        figure.title, figure.unit
    );
    if let Some(file) = plot {
        let _ = writeln!(text, "![{}]({file})\n", figure.title);
    }
    let parameter = figure.parameter.as_deref();
    let compared = figure
        .rows
        .iter()
        .any(|row| row.contender != figure.rows[0].contender);
    let mut head = String::from("| ");
    let mut rule = String::from("| ");
    if let Some(name) = parameter {
        let _ = write!(head, "{name} | ");
        rule += "---: | ";
    }
    head += "who | median | least | largest |";
    rule += "--- | ---: | ---: | ---: |";
    if compared {
        head += " balancerd is better |";
        rule += " ---: |";
    }
    let _ = writeln!(text, "{head}\n{rule}");
    for row in &figure.rows {
        text.push_str("| ");
        if parameter.is_some() {
            let _ = write!(text, "{} | ", grouped(row.at));
        }
        let _ = write!(
            text,
            "{}{} | {} | {} | {} |",
            row.contender,
            if row.noisy { " *noisy*" } else { "" },
            number(row.median),
            number(row.min),
            number(row.max)
        );
        if compared {
            let _ = write!(text, " {} |", ratio(row));
        }
        text.push('\n');
    }
}

fn ratio(row: &Row) -> String {
    row.balancerd_better
        .map_or_else(String::new, |ratio| format!("{ratio:.2}×"))
}

/// Three figures, or all before the point.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        value if value == 0.0 || value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// With a comma before each three digits.
fn grouped(value: u32) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_figures() {
        for (value, text) in [
            (0.0, "0"),
            (0.123_4, "0.123"),
            (9.876, "9.88"),
            (45.67, "45.7"),
            (1520.4, "1520"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(grouped(32_768), "32,768");
        assert_eq!(grouped(100), "100");
    }
}
