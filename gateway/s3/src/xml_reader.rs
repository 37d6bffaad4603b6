//! Reads the XML of requests.
//!
//! A document is read into a small tree, because the three documents we accept are small (the body is bounded before it gets
//! here) and flat. No DTD, no entities but the five built-in ones and character references, no nesting beyond
//! [`DEPTH_MAX`]: every oddity is `MalformedXML`. Namespaces and attributes are ignored, as Amazon S3 does.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::error::{S3Error, S3ErrorCode};

/// Deeper than any document of ours.
const DEPTH_MAX: usize = 8;

/// An element: its local name, its text, its children.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub name: String,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    /// Parses a whole document whose root has the given name.
    pub fn parse(document: &[u8], root: &str) -> Result<Self, S3Error> {
        let text = std::str::from_utf8(document).map_err(|_| malformed())?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let element = read(text)?;
        if element.name == root { Ok(element) } else { Err(malformed()) }
    }

    /// The text of a child that may come once at most.
    pub fn optional(&self, name: &str) -> Result<Option<&str>, S3Error> {
        let mut found = self.children.iter().filter(|child| child.name == name);
        let first = found.next();
        if found.next().is_some() {
            return Err(malformed());
        }
        Ok(first.map(|child| child.text.as_str()))
    }

    /// The text of a child that must come exactly once.
    pub fn required(&self, name: &str) -> Result<&str, S3Error> {
        self.optional(name)?.ok_or_else(malformed)
    }

    /// All children of a name.
    pub fn all<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Element> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

pub(crate) fn malformed() -> S3Error {
    S3ErrorCode::MalformedXML.into()
}

fn read(text: &str) -> Result<Element, S3Error> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Element> = Vec::new();
    let mut root: Option<Element> = None;
    loop {
        match reader.read_event().map_err(|_| malformed())? {
            Event::Start(start) => {
                if open.len() >= DEPTH_MAX || root.is_some() {
                    return Err(malformed());
                }
                open.push(Element { name: start.local_name().as_ref().to_owned(), ..Element::default() });
            }
            Event::End(_) => {
                let element = open.pop().ok_or_else(malformed)?;
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => root = Some(element),
                }
            }
            Event::Text(piece) => match open.last_mut() {
                Some(element) => element.text.push_str(&piece),
                None if piece.trim().is_empty() => {}
                None => return Err(malformed()),
            },
            Event::CData(piece) => open.last_mut().ok_or_else(malformed)?.text.push_str(&piece),
            Event::GeneralRef(reference) => {
                let character = match reference.resolve_char_ref().map_err(|_| malformed())? {
                    Some(character) => character,
                    None => match reference.as_ref() {
                        "amp" => '&',
                        "lt" => '<',
                        "gt" => '>',
                        "quot" => '"',
                        "apos" => '\'',
                        _ => return Err(malformed()),
                    },
                };
                open.last_mut().ok_or_else(malformed)?.text.push(character);
            }
            Event::DocType(_) => return Err(malformed()),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::Empty(_) => {}
            Event::Eof => break,
        }
    }
    if !open.is_empty() {
        return Err(malformed());
    }
    root.ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_becomes_a_tree() {
        let text = "<?xml version=\"1.0\"?><!-- c --><Delete xmlns=\"x\"><Object><Key>a&amp;b&#13;<![CDATA[<c>]]></Key></Object>\
            <Object><Key> d </Key><VersionId/></Object><Quiet>true</Quiet></Delete>\n";
        let delete = Element::parse(text.as_bytes(), "Delete").unwrap();
        let keys: Vec<&str> = delete.all("Object").map(|object| object.required("Key").unwrap()).collect();
        assert_eq!(keys, ["a&b\r<c>", " d "]);
        assert_eq!(delete.optional("Quiet").unwrap(), Some("true"));
        assert_eq!(delete.all("Object").nth(1).unwrap().optional("VersionId").unwrap(), Some(""));
        assert!(delete.required("Missing").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_tree_or_malformed(document in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Element::parse(&document, "Delete");
        }

        #[test]
        fn any_markup_is_a_tree_or_malformed(markup in "(<Delete>|</Delete>|<Key/>|<!|-->|<!--|&amp;|&#x1;|&|<!\\[CDATA\\[|\\]\\]>|<\\?|\\?>|a|\"){0,20}") {
            let _ = Element::parse(markup.as_bytes(), "Delete");
        }
    }

    #[test]
    fn anything_odd_is_malformed() {
        let deep = "<a>".repeat(100_000);
        for text in [
            "",
            "text",
            "<Delete>",
            "<Delete></Other>",
            "</Delete>",
            "<Other/>",
            "<Delete/><Delete/>",
            "<Delete/>text",
            "<!DOCTYPE d [<!ENTITY a \"b\">]><Delete>&a;</Delete>",
            "<Delete>&unknown;</Delete>",
            "<Delete>&#xFFFFFFFF;</Delete>",
            "<Delete><",
            deep.as_str(),
        ] {
            let code = Element::parse(text.as_bytes(), "Delete").map_err(|error| error.code);
            assert_eq!(code, Err(S3ErrorCode::MalformedXML), "{:.60}", text);
        }
        assert!(Element::parse(b"<Delete>\xff</Delete>", "Delete").is_err());
    }
}
