use super::*;
use DType::*;

fn program(body: Vec<Stmt>) -> Program {
    Program {
        inputs: vec![F32, S32],
        outputs: vec![F32],
        scalars: vec![F32],
        locals: vec![POSITION],
        body,
        report: None,
        group: None,
    }
}

fn boxed(expr: Expr) -> Box<Expr> {
    Box::new(expr)
}

#[test]
fn what_agrees_passes() {
    let value = Expr::Binary(Binary::Mul, boxed(Expr::Scalar(0)), boxed(Expr::Own(0)));
    let body = vec![
        Stmt::Set(0, Expr::Len(1)),
        Stmt::Put(2, value.clone()),
        Stmt::Write(2, Expr::Local(0), value),
    ];
    let program = program(body);
    assert_eq!(program.check(), Ok(()));
    assert_eq!(program.own(), [0, 2]);
    assert_eq!(program.dtypes(), [F32, S32]);
}

#[test]
fn what_does_not_agree_is_named() {
    let wrong = [
        Stmt::Put(0, Expr::Own(0)),
        Stmt::Put(3, Expr::Own(0)),
        Stmt::Put(2, Expr::Own(1)),
        Stmt::Put(2, Expr::Scalar(1)),
        Stmt::Put(2, Expr::Local(1)),
        Stmt::Write(2, Expr::Own(0), Expr::Own(0)),
        Stmt::If(Expr::Own(0), vec![], vec![]),
        Stmt::For(0, Expr::Own(0), Expr::Position, vec![]),
        Stmt::Put(2, Expr::Unary(Unary::BitNot, boxed(Expr::Own(0)))),
        Stmt::Put(
            2,
            Expr::Binary(Binary::Shl, boxed(Expr::Own(0)), boxed(Expr::Own(0))),
        ),
        Stmt::Put(
            2,
            Expr::Binary(Binary::Add, boxed(Expr::Own(0)), boxed(Expr::Own(1))),
        ),
    ];
    for statement in wrong {
        assert!(
            program(vec![statement.clone()]).check().is_err(),
            "{statement:?}"
        );
    }
}

#[test]
fn a_barrier_is_where_all_threads_come_by() {
    let one = || Expr::Const(S32, 1);
    let first = || Expr::Binary(Binary::Lt, boxed(Expr::Member), boxed(one()));
    let same = || Expr::Binary(Binary::Lt, boxed(Expr::Group), boxed(one()));
    let round = |from, body| Stmt::For(0, from, one(), body);
    let grouped = |body| {
        let group = Some(Group {
            threads: 8,
            shared: vec![(S32, 4)],
        });
        Program {
            group,
            ..program(body)
        }
    };
    let fine = [
        vec![Stmt::Barrier],
        vec![Stmt::If(same(), vec![Stmt::Barrier], vec![])],
        vec![round(Expr::Len(1), vec![Stmt::Barrier])],
        vec![
            Stmt::Set(0, Expr::Group),
            round(Expr::Local(0), vec![Stmt::Barrier]),
        ],
    ];
    for body in fine {
        assert_eq!(grouped(body.clone()).check(), Ok(()), "{body:?}");
    }
    let wrong = [
        vec![Stmt::If(first(), vec![Stmt::Barrier], vec![])],
        vec![Stmt::If(first(), vec![], vec![Stmt::Barrier])],
        vec![round(Expr::Member, vec![Stmt::Barrier])],
        vec![round(
            Expr::Read(1, boxed(one())),
            vec![Stmt::If(same(), vec![Stmt::Barrier], vec![])],
        )],
        // What a local is set to further down counts in a loop.
        vec![round(
            one(),
            vec![
                round(Expr::Local(0), vec![Stmt::Barrier]),
                Stmt::Set(0, Expr::Member),
            ],
        )],
        vec![
            Stmt::If(first(), vec![Stmt::Set(0, one())], vec![]),
            round(Expr::Local(0), vec![Stmt::Barrier]),
        ],
        vec![Stmt::Put(2, Expr::Scalar(0))],
        vec![Stmt::Set(0, Expr::Position)],
    ];
    for body in wrong {
        assert!(grouped(body.clone()).check().is_err(), "{body:?}");
    }
    assert!(program(vec![Stmt::Barrier]).check().is_err());
    assert!(program(vec![Stmt::Set(0, Expr::Member)]).check().is_err());
}

#[test]
fn what_is_too_deep_or_too_large_is_refused() {
    let mut deep = Expr::Own(0);
    for _ in 0..300 {
        deep = Expr::Unary(Unary::Neg, boxed(deep));
    }
    assert!(program(vec![Stmt::Put(2, deep)]).check().is_err());
    let many = vec![Stmt::Put(2, Expr::Own(0)); 20_000];
    assert!(program(many).check().is_err());
}
