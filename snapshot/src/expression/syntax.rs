//! The way from a pattern to the bytes that match it. A pattern is parsed alone, whatever it is used for.
//!
//! As RE2 has it, `\d`, `\s`, `\w` and `\b` are about ASCII. What matches everything beyond ASCII, as `.` and `[^/]` do,
//! matches it byte by byte: paths are percent-encoded, and automata stay small. Other classes beyond ASCII (`[äöü]`, `\pL`)
//! match characters.

use regex_syntax::{
    ast::{
        Ast, ClassAscii, ClassAsciiKind, ClassBracketed, ClassPerl, ClassPerlKind, ClassSet, ClassSetItem,
        parse::ParserBuilder,
    },
    hir::{
        Class, ClassBytes, ClassBytesRange, ClassUnicode, Hir, HirKind, Look, Repetition, translate::TranslatorBuilder,
    },
};

use super::Fault;

/// Groups within groups; deeper ones nobody writes.
const NESTING: u32 = 100;
/// Classes of characters beyond ASCII, each of which may be thousands.
const WIDE_CLASSES: usize = 16;

/// The meaning of a pattern.
pub(super) fn parse(pattern: &str) -> Result<Hir, Fault> {
    let syntax = |what: String| Fault::Syntax(what.into());
    let mut tree = ParserBuilder::new()
        .nest_limit(NESTING)
        .build()
        .parse(pattern)
        .map_err(|error| syntax(error.kind().to_string()))?;
    let mut wide = 0;
    restrict(&mut tree, &mut wide);
    if wide > WIDE_CLASSES {
        return Err(Fault::TooComplex("has too many classes of characters beyond ASCII"));
    }
    let meaning = TranslatorBuilder::new().utf8(false).build().translate(pattern, &tree);
    Ok(bytes(meaning.map_err(|error| syntax(error.kind().to_string()))?))
}

/// The text that all matches begin with, as far as it stands there in the clear.
pub(super) fn prefix(meaning: &Hir) -> &str {
    let literal = match meaning.kind() {
        HirKind::Literal(literal) => &literal.0,
        HirKind::Capture(capture) => return prefix(&capture.sub),
        HirKind::Concat(parts) => {
            let first = parts.iter().find(|part| !matches!(part.kind(), HirKind::Look(Look::Start)));
            return first.map_or("", prefix);
        }
        _ => return "",
    };
    str::from_utf8(literal).unwrap_or_default()
}

/// Makes Perl's classes those of ASCII, and counts the classes that are not.
fn restrict(tree: &mut Ast, wide: &mut usize) {
    match tree {
        Ast::ClassPerl(class) => {
            let (span, kind) = (class.span, ClassSet::Item(ClassSetItem::Ascii(ascii(class))));
            *tree = Ast::ClassBracketed(Box::new(ClassBracketed { span, negated: false, kind }));
        }
        Ast::ClassUnicode(_) => *wide += 1,
        Ast::ClassBracketed(class) => restrict_set(&mut class.kind, wide),
        Ast::Repetition(repetition) => restrict(&mut repetition.ast, wide),
        Ast::Group(group) => restrict(&mut group.ast, wide),
        Ast::Alternation(list) => list.asts.iter_mut().for_each(|tree| restrict(tree, wide)),
        Ast::Concat(list) => list.asts.iter_mut().for_each(|tree| restrict(tree, wide)),
        Ast::Empty(_) | Ast::Flags(_) | Ast::Literal(_) | Ast::Dot(_) | Ast::Assertion(_) => {}
    }
}

fn restrict_set(set: &mut ClassSet, wide: &mut usize) {
    match set {
        ClassSet::Item(item) => restrict_item(item, wide),
        ClassSet::BinaryOp(both) => {
            // Each side becomes a set of its own.
            *wide += 1;
            restrict_set(&mut both.lhs, wide);
            restrict_set(&mut both.rhs, wide);
        }
    }
}

fn restrict_item(item: &mut ClassSetItem, wide: &mut usize) {
    match item {
        ClassSetItem::Perl(class) => {
            *wide += usize::from(class.negated);
            *item = ClassSetItem::Ascii(ascii(class));
        }
        ClassSetItem::Unicode(_) => *wide += 1,
        ClassSetItem::Range(range) => *wide += usize::from(!range.end.c.is_ascii()),
        ClassSetItem::Ascii(class) => *wide += usize::from(class.negated),
        ClassSetItem::Bracketed(class) => {
            *wide += usize::from(class.negated);
            restrict_set(&mut class.kind, wide);
        }
        ClassSetItem::Union(union) => union.items.iter_mut().for_each(|item| restrict_item(item, wide)),
        ClassSetItem::Empty(_) | ClassSetItem::Literal(_) => {}
    }
}

fn ascii(class: &ClassPerl) -> ClassAscii {
    let kind = match class.kind {
        ClassPerlKind::Digit => ClassAsciiKind::Digit,
        ClassPerlKind::Space => ClassAsciiKind::Space,
        ClassPerlKind::Word => ClassAsciiKind::Word,
    };
    ClassAscii { span: class.span, kind, negated: class.negated }
}

/// The meaning without characters where bytes do.
fn bytes(meaning: Hir) -> Hir {
    match meaning.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(Class::Unicode(class)) => Hir::class(bytes_of(class)),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(look) => Hir::look(about_ascii(look)),
        HirKind::Repetition(Repetition { min, max, greedy, sub }) => {
            Hir::repetition(Repetition { min, max, greedy, sub: Box::new(bytes(*sub)) })
        }
        HirKind::Capture(capture) => bytes(*capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.into_iter().map(bytes).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.into_iter().map(bytes).collect()),
    }
}

fn bytes_of(class: ClassUnicode) -> Class {
    let beyond = class.ranges().last().is_some_and(|range| range.start() <= '\u{80}' && range.end() == char::MAX);
    if !beyond {
        return Class::Unicode(class);
    }
    let byte = |c: char| u8::try_from(c).ok().filter(u8::is_ascii).unwrap_or(u8::MAX);
    let ranges =
        class.ranges().iter().map(|range| ClassBytesRange::new(byte(range.start().min('\u{7f}')), byte(range.end())));
    let last = ClassBytesRange::new(0x80, 0xff);
    Class::Bytes(ClassBytes::new(ranges.chain([last])))
}

fn about_ascii(look: Look) -> Look {
    match look {
        Look::WordUnicode => Look::WordAscii,
        Look::WordUnicodeNegate => Look::WordAsciiNegate,
        Look::WordStartUnicode => Look::WordStartAscii,
        Look::WordEndUnicode => Look::WordEndAscii,
        Look::WordStartHalfUnicode => Look::WordStartHalfAscii,
        Look::WordEndHalfUnicode => Look::WordEndHalfAscii,
        other => other,
    }
}
