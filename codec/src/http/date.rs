//! The Date header's value (RFC 9110 §5.6.7).

/// A point of time as HTTP writes it, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpDate([u8; 29]);

const SECONDS_PER_DAY: u64 = 86_400;
/// 9999-12-31T23:59:59, the last second with a year of four digits.
const LAST_SECOND: u64 = 253_402_300_799;
/// The first of January 1970 was a Thursday.
const WEEKDAYS: &[u8] = b"ThuFriSatSunMonTueWed";
const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

impl HttpDate {
    /// The date so many seconds after the beginning of 1970, UTC; at most the end of the year 9999.
    #[must_use]
    pub fn from_unix(seconds: u64) -> Self {
        let seconds = seconds.min(LAST_SECOND);
        let (days, of_day) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
        let (year, month, day) = civil(days);
        let mut date = Self(*b"Thu, 01 Jan 1970 00:00:00 GMT");
        date.put_name(0, WEEKDAYS, days % 7);
        date.put_digits(5, day);
        date.put_name(8, MONTHS, month - 1);
        date.put_digits(12, year / 100);
        date.put_digits(14, year % 100);
        date.put_digits(17, of_day / 3600);
        date.put_digits(20, of_day / 60 % 60);
        date.put_digits(23, of_day % 60);
        date
    }

    /// The header's value.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn put_name(&mut self, at: usize, names: &[u8], index: u64) {
        let name = names.chunks_exact(3).nth(usize::try_from(index).unwrap_or(0));
        for (place, byte) in self.0.iter_mut().skip(at).zip(name.unwrap_or_default()) {
            *place = *byte;
        }
    }

    fn put_digits(&mut self, at: usize, number: u64) {
        let digits = [number / 10 % 10, number % 10];
        for (place, digit) in self.0.iter_mut().skip(at).zip(digits) {
            *place = b'0' + u8::try_from(digit).unwrap_or(0);
        }
    }
}

/// Year, month and day of the month from days since 1970: counts in years that begin in March, so that the leap day
/// is the last of its year, and in cycles of 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (cycle * 400 + year + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            // RFC 9110 §5.6.7
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (LAST_SECOND, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let date = HttpDate::from_unix(seconds);
            assert_eq!(str::from_utf8(date.as_bytes()), Ok(text), "{seconds}");
        }
    }

    /// Each day follows the one before it.
    #[test]
    fn a_calendar_without_gaps() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200 * 366 {
            assert_eq!(civil(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let lengths = [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            day += 1;
            if day > lengths[usize::try_from(month).unwrap() - 1] {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
