//! What people say: reasons, details and notes, within their limit.

use alloc::string::String;

use crate::limits::REASON_BYTES;

/// A text cut to [`REASON_BYTES`], between two characters.
#[must_use]
pub fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(REASON_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(clipped("no".into()), "no");
        assert_eq!(clipped("x".repeat(REASON_BYTES)).len(), REASON_BYTES);
        let text = format!("x{}", "ä".repeat(REASON_BYTES));
        assert_eq!(clipped(text).len(), REASON_BYTES - 1);
    }
}
