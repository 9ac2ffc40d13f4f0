use super::*;

fn body(expression: &str) -> String {
    format!("fn main() {{ x[0] = {expression}; }}")
}

fn refused(text: &str, part: &str) {
    let reason = check(text).expect_err(part);
    assert!(reason.contains(part), "{reason}");
}

fn nested(open: &str, close: &str, times: usize) -> String {
    format!("{}1.0{}", open.repeat(times), close.repeat(times))
}

#[test]
fn what_is_nested_too_deep_is_refused() {
    for (open, close) in [
        ("(", ")"),
        ("abs(", ")"),
        ("x[", "]"),
        ("array<", ",2>"),
        ("vec2<f32>(", ")"),
        ("f(1, ", ")"),
        ("/* ) */ (", ")"),
        ("// )\r (", ")"),
    ] {
        assert_eq!(check(&body(&nested(open, close, 60))), Ok(()), "{open}");
        let many = body(&nested(open, close, 2_000));
        refused(&many, "nested deeper than 100 levels");
        // The same without closing brackets.
        refused(&body(&open.repeat(2_000)), "nested deeper than 100 levels");
    }
    refused(&"{".repeat(2_000), "line 1: nested deeper");
    refused(&"\n{".repeat(2_000), "line 102: nested deeper");
}

#[test]
fn what_has_too_many_operators_in_a_row_is_refused() {
    for link in [
        " + 1.0", " - -1.0", ".x", "[0]", "(1)", " && a", " << 1", " < b",
    ] {
        let short = body(&format!("a{}", link.repeat(90)));
        assert_eq!(check(&short), Ok(()), "{link}");
        let long = body(&format!("a{}", link.repeat(2_000)));
        assert!(check(&long).is_err(), "{link}");
    }
    for sign in ["-", "!", "~", "&", "*"] {
        refused(
            &body(&format!("{}a", sign.repeat(4_000))),
            "more than 1000 operators",
        );
    }
    let cases = format!(
        "fn main() {{ if a {{ }} {} }}",
        "else if a { }".repeat(2_000)
    );
    refused(&cases, "more than 1000 operators");
    let split = "x[0] = a + b; ".repeat(2_000);
    assert_eq!(check(&format!("fn main() {{ {split} }}")), Ok(()));
    let table = "vec4<f32>(1.0, -2.0, 3.0, 4.0), ".repeat(2_000);
    assert_eq!(check(&format!("const t = array({table});")), Ok(()));
    let ifs = "if a { b(); } ".repeat(2_000);
    assert_eq!(check(&format!("fn main() {{ {ifs} }}")), Ok(()));
}

#[test]
fn what_grows_too_large_once_it_is_written_out_is_refused() {
    let calls = |count: usize, times: usize| {
        let mut text = "fn g0(a: f32) -> f32 { return a + 1.0; }\n".to_string();
        for at in 1..count {
            let sum = vec![format!("g{}(a)", at - 1); times].join(" + ");
            text += &format!("fn g{at}(a: f32) -> f32 {{ return {sum}; }}\n");
        }
        text
    };
    assert_eq!(check(&calls(10, 2)), Ok(()));
    refused(&calls(24, 2), "has more than 200000 tokens once");
    refused(&calls(300, 1), "more than 250 other declarations");
    let mut tables = "const c0 = array(1.0, 2.0);\n".to_string();
    for at in 1..30 {
        tables += &format!("const c{at} = array(c{0}, c{0});\n", at - 1);
    }
    refused(&tables, "has more than 200000 tokens once");
    // In any order, and with a declaration that uses itself.
    let lines = calls(24, 2);
    let lines = lines.lines().rev().collect::<Vec<_>>().join("\n");
    refused(&lines, "has more than 200000 tokens once");
    assert_eq!(check("fn a() { b(); }\nfn b() { a(); }"), Ok(()));
}

#[test]
fn what_is_too_long_is_refused() {
    refused(
        &" ".repeat(MAX_BYTES + 1),
        "the source has 131073 bytes: at most 131072",
    );
    assert_eq!(
        check(&"\u{fe}\u{85}/**/ /*/ */ \u{2028}".repeat(1_000)),
        Ok(())
    );
    assert_eq!(check("/* /* */ )"), Ok(()));
    assert_eq!(check("))))}}}}]]]]>>>>"), Ok(()));
}
