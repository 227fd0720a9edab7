use proptest::prelude::*;

use super::*;

fn json(shape: &Shape, text: &str) -> String {
    told(shape, text).unwrap()
}

fn told(shape: &Shape, text: &str) -> Result<String, Misshapen> {
    let mut out = String::new();
    to_json(shape, text, &mut out).map(|()| out)
}

#[test]
fn numbers_stay_numbers_without_loss() {
    for text in ["0", "-17", "9223372036854775807", "1.50", "0.000", "123456789012345678901234.5"] {
        assert_eq!(json(&Shape::Number, text), text);
    }
    for text in ["NaN", "Infinity", "-Infinity"] {
        assert_eq!(json(&Shape::Number, text), format!("\"{text}\""));
        assert_eq!(json(&Shape::Float, text), format!("\"{text}\""));
    }
}

#[test]
fn exponents_are_written_out() {
    for (text, plain) in [
        ("1e+20", "100000000000000000000"),
        ("1.5e+3", "1500"),
        ("1.2345e+2", "123.45"),
        ("1e-05", "0.00001"),
        ("-1.25e-7", "-0.000000125"),
        ("-0", "0"),
        ("0.1", "0.1"),
        ("12.5e-1", "1.25"),
        ("0e5", "0"),
        ("0.0e-2", "0.000"),
    ] {
        assert_eq!(json(&Shape::Float, text), plain, "{text}");
    }
    assert_eq!(json(&Shape::Float, "5e-324").len(), 326);
}

#[test]
fn moments_are_iso_8601() {
    for (text, iso) in [
        ("2020-01-01", "2020-01-01"),
        ("2020-01-01 00:00:00", "2020-01-01T00:00:00"),
        ("2020-01-01 00:00:00.123+00", "2020-01-01T00:00:00.123+00:00"),
        ("12020-01-01 00:00:00+05:30", "12020-01-01T00:00:00+05:30"),
        ("0044-03-15 BC", "0044-03-15 BC"),
        ("0044-03-15 12:00:00+00 BC", "0044-03-15T12:00:00+00:00 BC"),
        ("infinity", "infinity"),
        ("-infinity", "-infinity"),
    ] {
        assert_eq!(json(&Shape::Time, text), format!("\"{iso}\""), "{text}");
    }
}

#[test]
fn strings_are_escaped_as_jsonb_does() {
    assert_eq!(
        json(&Shape::Text, "a\"b\\c\n\t\u{1}\u{7f}é🦀/"),
        "\"a\\\"b\\\\c\\n\\t\\u0001\u{7f}é🦀/\""
    );
}

#[test]
fn arrays_are_taken_apart() {
    let of = |shape| Shape::Array(Arc::new(shape), b',');
    for (text, array) in [
        ("{}", "[]"),
        ("{1,2,NULL}", "[1, 2, null]"),
        ("{{1,2},{3,4}}", "[[1, 2], [3, 4]]"),
        ("[0:1]={5,6}", "[5, 6]"),
        ("[2:2][-1:0]={{5,6}}", "[[5, 6]]"),
    ] {
        assert_eq!(json(&of(Shape::Number), text), array);
    }
    assert_eq!(
        json(&of(Shape::Text), r#"{"",NULL,"NULL","a,b","c\"d","e\\f","{x}",é}"#),
        r#"["", null, "NULL", "a,b", "c\"d", "e\\f", "{x}", "é"]"#
    );
    assert_eq!(
        json(&Shape::Array(Arc::new(Shape::Text), b';'), "{(1,1),(0,0);(3,3),(2,2)}"),
        r#"["(1,1),(0,0)", "(3,3),(2,2)"]"#
    );
    assert_eq!(json(&Shape::Vector(Arc::new(Shape::Number)), "1 2 3"), "[1, 2, 3]");
    for wrong in ["", "{", "{1", "{1,", "{1}x", "[0:1]", "{\"a}", "1"] {
        assert_eq!(told(&of(Shape::Number), wrong), Err(Misshapen), "{wrong}");
    }
}

fn point() -> Shape {
    let attribute = |name: &str, shape| Attribute { name: name.into(), shape: Arc::new(shape) };
    Shape::Composite([attribute("name", Shape::Text), attribute("x", Shape::Number)].into())
}

#[test]
fn a_text_where_a_number_or_json_was_is_never_json() {
    let attribute = |shape| Attribute { name: "n".into(), shape: Arc::new(shape) };
    let array = |shape| Shape::Array(Arc::new(shape), b',');
    for shape in [Shape::Number, Shape::Jsonb, array(Shape::Number), array(Shape::Jsonb)] {
        let composite = Shape::Composite([attribute(shape.clone())].into());
        for text in ["hello", "1,\"m\":2", "{hello}", "{1}, \"m\": {2}", "1 2"] {
            let written = format!(
                "({})",
                text.replace('\\', "\\\\").replace('"', "\\\"").replace(',', "\\,")
            );
            let told = told(&composite, &written);
            if let Ok(json) = told {
                let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
                assert_eq!(read.as_object().unwrap().len(), 1, "{shape:?} {text}: {json}");
            }
        }
    }
}

#[test]
fn composites_are_objects_with_keys_in_the_order_of_jsonb() {
    assert_eq!(json(&point(), r#"("a ""b"", \\c",1)"#), r#"{"x": 1, "name": "a \"b\", \\c"}"#);
    assert_eq!(json(&point(), "(,)"), r#"{"x": null, "name": null}"#);
    assert_eq!(json(&point(), r#"("",2)"#), r#"{"x": 2, "name": ""}"#);
    let nested = Shape::Array(Arc::new(point()), b',');
    assert_eq!(
        json(&nested, r#"{"(\"a,b\",1)","(c,2)",NULL}"#),
        r#"[{"x": 1, "name": "a,b"}, {"x": 2, "name": "c"}, null]"#
    );
    for wrong in ["(a)", "(a,1,2)", "a,1", "(a,1", "(a,1)x"] {
        assert_eq!(told(&point(), wrong), Err(Misshapen), "{wrong}");
    }
}

#[test]
fn an_hstore_is_an_object_of_strings() {
    assert_eq!(
        json(&Shape::Hstore, r#""bb"=>"1", "a"=>NULL, "q\"\\"=>"x=>y, z""#),
        r#"{"a": null, "bb": "1", "q\"\\": "x=>y, z"}"#
    );
    assert_eq!(json(&Shape::Hstore, ""), "{}");
}

#[test]
fn json_as_written_becomes_what_jsonb_holds() {
    for (text, jsonb) in [
        (r#" { "b" : 1 , "a":[ ] ,"b":2.50, "long": {} } "#, r#"{"a": [], "b": 2.50, "long": {}}"#),
        ("1e3", "1000"),
        ("[1.0,-0,true,false,null]", "[1.0, 0, true, false, null]"),
        (r#""\u00e9\ud83e\udd80\/\b""#, "\"é🦀/\\b\""),
    ] {
        assert_eq!(json(&Shape::Json, text), jsonb);
    }
}

#[test]
fn json_that_jsonb_cannot_hold_stays_as_it_was_written() {
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    for text in [r#""\u0000""#, r#""\ud800""#, "1e999999", &deep] {
        assert_eq!(json(&Shape::Json, text), text);
    }
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let leaf = prop::sample::select(vec![
        Shape::Bool,
        Shape::Number,
        Shape::Float,
        Shape::Time,
        Shape::Json,
        Shape::Hstore,
        Shape::Text,
        point(),
    ]);
    leaf.prop_recursive(3, 8, 1, |inner| {
        inner.prop_map(|shape| Shape::Array(Arc::new(shape), b','))
    })
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(shape in any_shape(), text in r#"[{}()\[\],:;"\\=>a1eN .+é-]{0,40}"#) {
        let _ = told(&shape, &text);
    }

    #[test]
    fn any_text_in_an_array_comes_out_as_it_was(texts in proptest::collection::vec(".*", 0..5)) {
        let quoted = |text: &String| {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        };
        let printed = format!("{{{}}}", texts.iter().map(quoted).collect::<Vec<_>>().join(","));
        let shape = Shape::Array(Arc::new(Shape::Text), b',');
        let read: Vec<String> = serde_json::from_str(&json(&shape, &printed)).unwrap();
        prop_assert_eq!(read, texts);
    }

    #[test]
    fn any_json_keeps_its_meaning(text in r#"[\[\]{}"a:,1.e \\u0-]{0,30}"#) {
        if let Ok(meaning) = serde_json::from_str::<serde_json::Value>(&text) {
            let again = serde_json::from_str(&json(&Shape::Json, &text));
            prop_assert_eq!(again.ok(), Some(meaning));
        }
    }
}
