//! Numbers as people read them.

/// Bytes: `512 B`, `1.2 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // In tenths of a unit, rounded; 1023.96 KiB is 1.0 MiB.
    let mut tenths = (u128::from(count) * 10 + 512) / 1024;
    let mut unit = 0;
    while tenths >= 10_240 {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A time in its two largest units: `45s`, `2h4m`, `1d2h`.
#[must_use]
pub fn seconds(count: u64) -> String {
    let (first, second) = match count {
        0..60 => return format!("{count}s"),
        60..3600 => ((count / 60, "m"), (count % 60, "s")),
        3600..86400 => ((count / 3600, "h"), (count % 3600 / 60, "m")),
        _ => ((count / 86400, "d"), (count % 86400 / 3600, "h")),
    };
    if second.0 == 0 {
        return format!("{}{}", first.0, first.1);
    }
    format!("{}{}{}{}", first.0, first.1, second.0, second.1)
}

/// A share: `12.5%`; of nothing, `-`.
#[must_use]
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    let tenths = u128::from(part) * 1000 / u128::from(whole);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_decimal() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_524, "1023.9 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_258_291, "1.2 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn times_have_two_units() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m1s"),
            (3599, "59m59s"),
            (7440, "2h4m"),
            (7200, "2h"),
            (93_784, "1d2h"),
            (u64::MAX, "213503982334601d7h"),
        ];
        for (count, text) in cases {
            assert_eq!(seconds(count), text, "{count}");
        }
    }

    #[test]
    fn shares_are_cut_so_that_full_means_full() {
        assert_eq!(share(1, 0), "-");
        assert_eq!(share(1, 8), "12.5%");
        assert_eq!(share(9999, 10_000), "99.9%");
        assert_eq!(share(u64::MAX, u64::MAX), "100.0%");
    }
}
