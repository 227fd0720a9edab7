//! What is read and what is refused.

use proptest::prelude::*;

use crate::filter::{Comparison, Filter, Is, Node, Test};

/// The conditions of a filter, as `column word constants`.
fn read(text: &str) -> Vec<String> {
    let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let told = |condition: &&crate::filter::Condition| {
        let constants = condition.test.constants().join("|");
        format!("{} {} {constants}", condition.column, condition.test.word())
    };
    filter.conditions().iter().map(told).collect()
}

fn refused(text: &str) -> String {
    Filter::parse(text).expect_err(text).to_string()
}

#[test]
fn conditions_are_read() {
    for (text, expected) in [
        ("id=eq.7", vec!["id eq 7"]),
        ("id=eq.7,name=neq.Ann", vec!["id eq 7", "name neq Ann"]),
        ("id=gte.7, id=lt.9", vec!["id gte 7", "id lt 9"]),
        ("s=in.(a,\"b,c\",\"d\\\"e\\\\\")", vec!["s in a|b,c|d\"e\\"]),
        ("name=eq.\"Smith, John\"", vec!["name eq Smith, John"]),
        ("name=eq.", vec!["name eq "]),
        ("name=eq.a.b=c(d)", vec!["name eq a.b=c(d)"]),
        ("\"my.col\"=eq.1", vec!["my.col eq 1"]),
        ("größe=gt.1", vec!["größe gt 1"]),
        ("or=(a.eq.1,b.is.null)", vec!["a eq 1", "b is "]),
        ("or(a.eq.1,b.not.in.(2,3))", vec!["a eq 1", "b in 2|3"]),
        ("not.and=(a.eq.1,or(b.eq.2,c.eq.\"x)y\"))", vec!["a eq 1", "b eq 2", "c eq x)y"]),
        ("or=eq.1", vec!["or eq 1"]),
        ("not=eq.1", vec!["not eq 1"]),
        ("x=isdistinct.1,y=like.*a%,z=imatch.^a", vec!["x isdistinct 1", "y like ", "z imatch "]),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
}

#[test]
fn not_stands_before_an_operator_or_a_group() {
    let Node::All(list) = Filter::parse("a=not.eq.1,not.or=(b.eq.1)").unwrap().root else {
        panic!("several are joined by and");
    };
    assert!(list.iter().all(|node| matches!(node, Node::Not(_))));
}

#[test]
fn words_after_is_are_of_any_case() {
    let filter = Filter::parse("a=is.NULL").unwrap();
    assert_eq!(filter.conditions()[0].test, Test::Is(Is::Null));
    let filter = Filter::parse("a=eq.null").unwrap();
    assert_eq!(filter.conditions()[0].test, Test::Compare(Comparison::Equal, "null".into()));
}

#[test]
fn errors_say_where_and_what() {
    for (text, expected) in [
        ("", "filter, at character 1: the name of a column is expected here"),
        ("id", "filter, at character 3: '=' is expected after \"id\""),
        ("id=7", "filter, at character 4: there is no operator \"7\"; there are eq, neq"),
        ("id=eqq.7", "filter, at character 4: there is no operator \"eqq\"; did you mean \"eq\"?"),
        ("id=eq", "filter, at character 6: \"eq\" is followed by a dot and a value"),
        ("größe=xx.7", "filter, at character 7: there is no operator \"xx\""),
        ("n=eq.a, b", "filter, at character 10: '=' is expected after \"b\""),
        ("n=eq.\"a", "filter, at character 6: this quote is not closed"),
        ("n=eq.\"a\"b", "filter, at character 9: a comma or the end is expected here"),
        ("n=in.()", "filter, at character 7: the list is empty"),
        ("n=in.a", "filter, at character 6: \"in\" is followed by values in parentheses"),
        ("n=in.(a", "filter, at character 8: a comma or \")\" is expected here"),
        ("n=is.maybe", "filter, at character 6: \"is\" is followed by null, true"),
        ("or=(a.eq.1", "filter, at character 11: a comma or \")\" is expected here"),
        ("or=(a.eq.f(x))", "filter, at character 11: a value with parentheses"),
        ("data->>a=eq.1", "filter, at character 1: parts of JSON values"),
        ("n=like.a\\", "filter, at character 8: the pattern ends with a backslash"),
        ("n=match.\\d", "filter, at character 9: \\d is not understood"),
        (
            "n=match.x{2,3}$",
            "at character 9: a count is {2}, {2,} or {2,5}, of at most 255; a value with a comma stands in double \
             quotes",
        ),
        ("n=eq.a\0", "filter, at character 8: PostgreSQL has no NUL"),
        ("or=(or(or(or(or(a.eq.1)))))", "groups are nested more than 4 deep"),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn there_are_limits() {
    let many = vec!["a=eq.1"; 33].join(",");
    assert!(refused(&many).contains("more than 32 conditions"));
    let list = format!("a=in.({})", vec!["1"; 101].join(","));
    assert!(refused(&list).contains("more than 100 values"));
    assert!(Filter::parse(&format!("a=in.({})", vec!["1"; 100].join(","))).is_ok());
    assert!(refused(&format!("a=eq.{}", "x".repeat(8_192))).contains("at most 8192"));
    assert!(refused(&format!("a=like.{}", "x".repeat(257))).contains("more than 256"));
    assert!(refused("a=match.((a{255}){255}){255}").contains("too complex"));
}

#[test]
fn expressions_that_two_engines_read_differently_are_refused() {
    for expression in [
        "\\w",
        "\\s",
        "\\bx",
        "\\1",
        "(?i)a",
        "(?=a)",
        "(?<n>a)",
        "[[:alpha:]]",
        "a**",
        "a{2}{3}",
        "*a",
        "a|*b",
        "(|a)",
        "()",
        "",
        "a|",
        "a{",
        "a{,2}",
        "a{3,2}",
        "a{256}",
        "[z-a]",
        "[]a]",
        "[a-é]",
        "^*",
        "a)",
        "(a",
        "[a",
        "a\\",
        "***=a",
        "[a--z]",
    ] {
        let quoted = expression.replace('\\', "\\\\");
        assert!(Filter::parse(&format!("a=match.\"{quoted}\"")).is_err(), "{expression}");
    }
    assert!(Filter::parse("a=match.é").is_ok());
    assert!(refused("a=imatch.é").contains("ASCII"));
    assert!(refused("a=imatch.[é]").contains("ASCII"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = Filter::parse(&text);
    }

    #[test]
    fn nearly_valid_texts_are_read_or_refused(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "a", "=", ".", "eq", "not.", "in", "(", ")", ",", "\"", "\\", "or", "and", "like", "*",
            "match", "[", "]", "^", "{", "2", "}", "is", "null", "é", "->", "|", "?", "-", " ",
        ]), 0..24),
    ) {
        let text = pieces.concat();
        if let Err(error) = Filter::parse(&text) {
            prop_assert!(error.at <= text.chars().count() + 1, "{} in {}", error, text);
        }
        for rest in ["a=match.\"", "a=imatch.\"", "a=ilike.\"", "or=("] {
            let _ = Filter::parse(&format!("{rest}{}", pieces.concat()));
        }
    }

    #[test]
    fn a_quoted_value_is_what_was_quoted(value in "\\PC{0,20}") {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        for text in [
            format!("a=eq.\"{quoted}\""),
            format!("a=in.(\"{quoted}\")"),
            format!("or=(a.eq.\"{quoted}\",a.eq.1)"),
        ] {
            let filter = Filter::parse(&text).unwrap();
            prop_assert_eq!(&*filter.conditions()[0].test.constants()[0], &value);
        }
    }
}
