//! Numbers as text, in one piece of memory: what `format!` and collecting characters do in many steps.

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; bytes.len() * 2];
    // The length is right, and digits are UTF-8.
    let written = hex::encode_to_slice(bytes, &mut digits);
    debug_assert!(written.is_ok());
    String::from_utf8(digits).unwrap_or_default()
}

/// Appends a number with at least so many digits.
pub(crate) fn push_padded(text: &mut String, number: i16, digits: u32) {
    let number = number.unsigned_abs();
    for place in (0..digits.max(number.checked_ilog10().unwrap_or(0) + 1)).rev() {
        let digit = number / 10_u16.saturating_pow(place) % 10;
        text.extend(char::from_digit(u32::from(digit), 10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_elsewhere() {
        assert_eq!(hex(&[0, 1, 0xab, 0xff]), "0001abff");
        for (number, digits) in [(0, 2), (7, 2), (59, 2), (2026, 4), (9999, 4), (12, 1), (0, 1), (105, 2)] {
            let mut text = String::from("-");
            push_padded(&mut text, number, digits);
            assert_eq!(text, format!("-{number:0width$}", width = digits as usize));
        }
    }
}
