//! Sizes and times as people write them.

/// Bytes, from `4096`, `4KiB`, `64MiB`, `5GiB`, `2TiB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a size such as 4096, 4KiB or 64MiB"))?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" | "K" => 10,
        "MiB" | "M" => 20,
        "GiB" | "G" => 30,
        "TiB" | "T" => 40,
        _ => return Err(format!("{unit:?} is not a unit: use KiB, MiB, GiB or TiB")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

/// Seconds, from `90s`, `10m`, `36h`, `2d`.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a time such as 90s, 10m, 36h or 2d");
    let (number, unit) = split(text);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)).ok_or_else(wrong)
}

fn split(text: &str) -> (&str, &str) {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    text.split_at(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_bytes(text).ok(), expected, "{text}");
        check("4096", Some(4096));
        check("4KiB", Some(4096));
        check("5GiB", Some(5 << 30));
        check("2TiB", Some(2 << 40));
        check("4kb", None);
        check("", None);
        check("99999999999TiB", None);
    }

    #[test]
    fn times_have_a_unit() {
        let parsed =
            ["90s", "10m", "36h", "2d", "10", "m", "1w", "99999999999999999999s", ""].map(|text| parse_seconds(text).ok());
        assert_eq!(parsed, [Some(90), Some(600), Some(129_600), Some(172_800), None, None, None, None, None]);
    }
}
