//! Writes the XML of replies.
//!
//! Control characters are written as character references. XML 1.0 forbids those below U+0020 in any form but tab, LF and
//! CR; Amazon S3 sends the references all the same, and a listing must not fail for one key's sake. Tab, LF and CR would be
//! normalised by the reader when written raw, which would change the key.

use std::fmt::{self, Write as _};

use placement_types::Timestamp;

use crate::checksum::Checksum;

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// A document under construction.
pub(crate) struct XmlWriter {
    text: String,
    root: &'static str,
}

impl XmlWriter {
    /// Opens the root element in S3's namespace.
    pub fn new(root: &'static str) -> Self {
        let mut text = String::with_capacity(1024);
        write!(text, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"{NAMESPACE}\">").expect(INFALLIBLE);
        Self { text, root }
    }

    /// Opens a root element without a namespace, as error documents have it.
    pub fn bare(root: &'static str) -> Self {
        Self { text: format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root}>"), root }
    }

    /// An element with text.
    pub fn element(&mut self, name: &str, value: impl fmt::Display) {
        write!(self.text, "<{name}>").expect(INFALLIBLE);
        write!(Escaped(&mut self.text), "{value}").expect(INFALLIBLE);
        write!(self.text, "</{name}>").expect(INFALLIBLE);
    }

    /// An element with text, when there is any.
    pub fn optional(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.element(name, value);
        }
    }

    /// Text directly in the element that is open.
    pub fn text(&mut self, value: impl fmt::Display) {
        write!(Escaped(&mut self.text), "{value}").expect(INFALLIBLE);
    }

    /// An element with elements in it.
    pub fn group(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        write!(self.text, "<{name}>").expect(INFALLIBLE);
        content(self);
        write!(self.text, "</{name}>").expect(INFALLIBLE);
    }

    pub fn etag(&mut self, etag: &str) {
        self.element("ETag", format_args!("\"{etag}\""));
    }

    pub fn time(&mut self, name: &str, time: Timestamp) {
        self.element(name, iso_time(time));
    }

    /// `<ChecksumCRC32>` and its like.
    pub fn checksum(&mut self, checksum: Option<&Checksum>) {
        if let Some(checksum) = checksum {
            self.element(&format!("Checksum{}", checksum.algorithm().name()), checksum.text());
        }
    }

    pub fn finish(mut self) -> String {
        write!(self.text, "</{}>", self.root).expect(INFALLIBLE);
        self.text
    }
}

const INFALLIBLE: &str = "writing to a String cannot fail";

/// `2009-10-12T17:50:30.000Z`.
pub(crate) fn iso_time(time: Timestamp) -> String {
    const FORMAT: &[time::format_description::FormatItem<'static>] =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let nanos = i128::from(time.as_millis()) * 1_000_000;
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|time| time.format(FORMAT).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
}

struct Escaped<'t>(&'t mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            let entity = match byte {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                0..0x20 | 0x7f => "",
                _ => continue,
            };
            self.0.push_str(&text[plain..at]);
            plain = at + 1;
            if entity.is_empty() {
                write!(self.0, "&#{byte};")?;
            } else {
                self.0.push_str(entity);
            }
        }
        self.0.push_str(&text[plain..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_so_that_a_reader_gets_it_back() {
        let mut xml = XmlWriter::new("R");
        xml.element("K", "a<b>&\"c\"\r\n\t\u{1}é");
        xml.group("G", |xml| xml.etag("ab"));
        xml.time("T", Timestamp::from_millis(1_255_369_830_001));
        xml.optional("N", None::<&str>);
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<R xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <K>a&lt;b&gt;&amp;&quot;c&quot;&#13;&#10;&#9;&#1;é</K><G><ETag>&quot;ab&quot;</ETag></G>\
            <T>2009-10-12T17:50:30.001Z</T></R>";
        assert_eq!(xml.finish(), expected);
    }

    #[test]
    fn every_time_has_a_text() {
        assert_eq!(iso_time(Timestamp::from_millis(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso_time(Timestamp::from_millis(u64::MAX)), "9999-12-31T23:59:59.999Z");
    }
}
