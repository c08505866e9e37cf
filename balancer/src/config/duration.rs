//! Durations as they are written: `"30s"`, `"2h4m"`, `"500ms"`, `"1d"`.

use std::fmt;
use std::time::Duration;

/// The units, from large to small, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// A duration as the configuration writes it. Parts below a millisecond are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DurationText(pub Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

/// Reads a duration: whole numbers, each with its unit, from large units to small ones.
///
/// # Errors
///
/// What is wrong with it, to follow the words "`VALUE` is not a duration: ".
pub(super) fn parse(text: &str) -> Result<Duration, &'static str> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut smallest = u64::MAX;
    if text.is_empty() {
        return Err("nothing stands there");
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if number.is_empty() {
            return Err("a whole number must stand before each unit");
        }
        if unit.is_empty() {
            return Err("a unit must follow each number");
        }
        let Some(&(_, size)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err("its unit is unknown");
        };
        if size >= smallest {
            return Err("units go from large to small, each once");
        }
        smallest = size;
        let part = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(size));
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or("it is too long")?;
        rest = tail;
    }
    Ok(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_durations_are_read_back() {
        for (text, milliseconds) in [
            ("30s", 30_000),
            ("2h4m", 7_440_000),
            ("500ms", 500),
            ("1d", 86_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse(text), Ok(duration), "{text}");
            assert_eq!(DurationText(duration).to_string(), text);
        }
        assert_eq!(parse("90s"), parse("1m30s"), "the same duration");
    }

    #[test]
    fn bad_durations_say_why() {
        for (text, why) in [
            ("", "nothing stands there"),
            ("30", "a unit must follow each number"),
            ("s", "a whole number must stand before each unit"),
            ("1.5h", "a unit must follow each number"),
            ("-1s", "a whole number must stand before each unit"),
            ("1s 2ms", "a whole number must stand before each unit"),
            ("3 s", "a unit must follow each number"),
            ("3w", "its unit is unknown"),
            ("3S", "its unit is unknown"),
            ("4m2h", "units go from large to small, each once"),
            ("1s1s", "units go from large to small, each once"),
            ("99999999999999999999s", "it is too long"),
            ("18446744073709551615d", "it is too long"),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }
}
