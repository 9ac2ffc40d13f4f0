use super::tree::*;
use crate::dtype::DType;
use DType::*;

fn program(body: Vec<Stmt>) -> Program {
    Program {
        inputs: vec![F32, S32],
        outputs: vec![F32],
        scalars: vec![F32],
        locals: vec![INDEX],
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
    let value = Expr::Binary(
        Binary::Mul,
        boxed(Expr::Scalar(0)),
        boxed(Expr::ElementAtSelf(0)),
    );
    let body = vec![
        Stmt::Set(0, Expr::Len(1)),
        Stmt::Put(2, value.clone()),
        Stmt::Write(2, Expr::Local(0), value),
    ];
    let program = program(body);
    assert_eq!(program.check(), Ok(()));
    assert_eq!(program.element_at_self(), [0, 2]);
    assert_eq!(program.dtypes(), [F32, S32]);
}

#[test]
fn what_does_not_agree_is_named() {
    let until = |limit, condition| {
        Stmt::While(Box::new(While {
            limit,
            head: vec![],
            condition,
            body: vec![],
        }))
    };
    assert_eq!(
        program(vec![until(Expr::GlobalId, Expr::Bool(true))]).check(),
        Ok(())
    );
    let wrong = [
        Stmt::Put(0, Expr::ElementAtSelf(0)),
        Stmt::Put(3, Expr::ElementAtSelf(0)),
        Stmt::Put(2, Expr::ElementAtSelf(1)),
        Stmt::Put(2, Expr::Scalar(1)),
        Stmt::Put(2, Expr::Local(1)),
        Stmt::Write(2, Expr::ElementAtSelf(0), Expr::ElementAtSelf(0)),
        Stmt::If(Expr::ElementAtSelf(0), vec![], vec![]),
        Stmt::For(0, Expr::ElementAtSelf(0), Expr::GlobalId, vec![]),
        until(Expr::ElementAtSelf(0), Expr::Bool(true)),
        until(Expr::GlobalId, Expr::GlobalId),
        Stmt::Put(2, Expr::Unary(Unary::BitNot, boxed(Expr::ElementAtSelf(0)))),
        Stmt::Put(
            2,
            Expr::Binary(
                Binary::Shl,
                boxed(Expr::ElementAtSelf(0)),
                boxed(Expr::ElementAtSelf(0)),
            ),
        ),
        Stmt::Put(
            2,
            Expr::Binary(
                Binary::Add,
                boxed(Expr::ElementAtSelf(0)),
                boxed(Expr::ElementAtSelf(1)),
            ),
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
    let first = || Expr::Binary(Binary::Lt, boxed(Expr::LocalId), boxed(one()));
    let same = || Expr::Binary(Binary::Lt, boxed(Expr::GroupId), boxed(one()));
    let round = |from, body| Stmt::For(0, from, one(), body);
    let until = |condition, body| {
        Stmt::While(Box::new(While {
            limit: one(),
            head: vec![],
            condition,
            body,
        }))
    };
    let sum = || Expr::Plane(Plane::Sum, boxed(one()));
    let plane = || Stmt::Set(0, sum());
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
            Stmt::Set(0, Expr::GroupId),
            round(Expr::Local(0), vec![Stmt::Barrier]),
        ],
        vec![until(same(), vec![Stmt::Barrier])],
        vec![Stmt::If(same(), vec![plane()], vec![])],
    ];
    for body in fine {
        assert_eq!(grouped(body.clone()).check(), Ok(()), "{body:?}");
    }
    let wrong = [
        vec![Stmt::If(first(), vec![Stmt::Barrier], vec![])],
        vec![Stmt::If(first(), vec![], vec![Stmt::Barrier])],
        vec![round(Expr::LocalId, vec![Stmt::Barrier])],
        vec![round(
            Expr::Read(1, boxed(one())),
            vec![Stmt::If(same(), vec![Stmt::Barrier], vec![])],
        )],
        // In a loop, an assignment further down in the body counts too.
        vec![round(
            one(),
            vec![
                round(Expr::Local(0), vec![Stmt::Barrier]),
                Stmt::Set(0, Expr::LocalId),
            ],
        )],
        vec![
            Stmt::If(first(), vec![Stmt::Set(0, one())], vec![]),
            round(Expr::Local(0), vec![Stmt::Barrier]),
        ],
        vec![until(first(), vec![Stmt::Barrier])],
        vec![until(first(), vec![plane()])],
        vec![Stmt::If(first(), vec![], vec![plane()])],
        vec![Stmt::Set(0, sum()), round(Expr::Local(0), vec![plane()])],
        vec![until(
            Expr::Binary(Binary::Lt, boxed(sum()), boxed(one())),
            vec![],
        )],
        vec![
            until(first(), vec![Stmt::Set(0, one())]),
            round(Expr::Local(0), vec![Stmt::Barrier]),
        ],
        vec![Stmt::Put(2, Expr::Scalar(0))],
        vec![Stmt::Set(0, Expr::GlobalId)],
    ];
    for body in wrong {
        assert!(grouped(body.clone()).check().is_err(), "{body:?}");
    }
    assert!(program(vec![Stmt::Barrier]).check().is_err());
    assert!(program(vec![plane()]).check().is_err());
    assert_eq!(grouped(vec![plane()]).plane_operation(), Some("plane_sum"));
    let narrow = Expr::Plane(Plane::Sum, boxed(Expr::Cast(S16, boxed(one()))));
    let narrow = Stmt::Set(0, Expr::Cast(S32, boxed(narrow)));
    assert!(grouped(vec![narrow]).check().is_err());
    assert!(program(vec![Stmt::Set(0, Expr::LocalId)]).check().is_err());
}

#[test]
fn what_is_too_deep_or_too_large_is_refused() {
    let refused = |body: Vec<Stmt>, part: &str| {
        let reason = program(body).check().expect_err(part);
        assert!(reason.contains(part), "{reason}");
    };
    let deep = |levels| {
        let negated = |expr, _| Expr::Unary(Unary::Neg, boxed(expr));
        vec![Stmt::Put(
            2,
            (0..levels).fold(Expr::ElementAtSelf(0), negated),
        )]
    };
    assert_eq!(program(deep(190)).check(), Ok(()));
    refused(deep(300), "deeper than 200 levels");
    let many = |count| vec![Stmt::Put(2, Expr::ElementAtSelf(0)); count];
    assert_eq!(program(many(9_000)).check(), Ok(()));
    refused(many(20_000), "more than 20,000 operations");
    let write = || Stmt::Write(2, Expr::GlobalId, Expr::ElementAtSelf(0));
    let read = || Stmt::Put(2, Expr::Read(0, boxed(Expr::GlobalId)));
    let branch = || Stmt::If(Expr::Bool(true), vec![], vec![]);
    let round = || Stmt::For(0, Expr::GlobalId, Expr::GlobalId, vec![]);
    let most = [
        (write(), 1_000),
        (branch(), 1_000),
        (round(), 1_000),
        (read(), 2_000),
    ];
    for (statement, most) in most {
        let body = |count| vec![statement.clone(); count];
        assert_eq!(program(body(most)).check(), Ok(()));
        refused(body(most + 1), "more than 1,000 branches");
    }
}
