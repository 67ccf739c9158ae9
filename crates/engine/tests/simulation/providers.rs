//! Providers that answer, are busy, break off or cannot be reached, by the seed; and what the ledger must say
//! of them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use engine::caller::Action;
use engine::clock::beijing_day;
use engine::connector::{Call, Connector, Scripted};
use engine::ledger::{Answer, Credits};
use engine::outcome::Outcome;
use engine::provider::{Endpoint, Limits, Provider};
use engine::route::{NotAnswered, Received, RecordTurn, Route, Routing, Sending, Task, Transport};
use engine::spending::{Asking, Bought, Caps, Ending, PurchaseId};

use super::Draws;

const PRICE: Credits = Credits(700_000);
const CAPS: [(&str, i64); 2] = [("first", 20), ("second", 60)];

/// What the accounts of record lack is asked of two providers, each with a cap that is reached.
pub fn routing() -> Routing {
    let provider = |(name, cap): (&str, i64)| {
        Arc::new(Provider {
            name: name.into(),
            connector: Connector::Scripted(Scripted),
            endpoint: Endpoint { host: "127.0.0.1".into(), port: 1, tls: false, ca: None },
            price: PRICE,
            prices: [None; Action::ALL.len()],
            caps: Caps { daily: Some(Credits::whole(cap)), monthly: None },
            timeout_ms: 1000,
            connect_timeout_ms: 100,
            limits: Limits { concurrent_max: 16, requests_per_second: 0, failures: 6, open_ms: 1000 },
            off: false,
        })
    };
    let route = Route {
        name: "all".into(),
        callers: vec![],
        actions: vec![],
        prefixes: vec![],
        record: RecordTurn::First,
        providers: vec![(0, 0), (1, 0)],
        deadline_ms: 5000,
        second_purchase: false,
        reuse_ms: 0,
        shadows: vec![],
    };
    let providers = CAPS.map(provider).into();
    Routing { providers, routes: vec![route], lacking_kept_ms: 86_400_000, recorder: None }
}

/// The other side of all calls.
pub struct Providers {
    draws: RefCell<Draws>,
    tasks: RefCell<Vec<Task>>,
    sent: Cell<u64>,
}

impl Providers {
    pub fn new(draws: Draws) -> Providers {
        Providers { draws: RefCell::new(draws), tasks: RefCell::default(), sent: Cell::new(0) }
    }

    /// How many calls came.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// The process that asked is gone.
    pub fn forget(&self) {
        self.tasks.borrow_mut().clear();
    }

    /// Takes the purchases as far as they go now; whether none is left.
    pub fn go_on(&self, context: &mut Context<'_>) -> bool {
        loop {
            let mut tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
            let mut began = self.tasks.borrow_mut();
            let began_none = began.is_empty();
            began.append(&mut tasks);
            if began_none {
                return began.is_empty();
            }
        }
    }

    fn reply(&self) -> Result<&'static str, NotAnswered> {
        match self.draws.borrow_mut().below(12) {
            0..4 => Ok("PASS"),
            4..6 => Ok("HOLDER_MISMATCH"),
            6 => Ok("SOURCE_BUSY"),
            7 => Ok("refused"),
            8 => Ok("unknown"),
            9 => Ok("<html>"),
            10 => Err(NotAnswered::Unsent("no route to host".into())),
            _ => Err(NotAnswered::Unclear("closed".into())),
        }
    }
}

impl Transport for Providers {
    fn run(&self, task: Task) {
        self.tasks.borrow_mut().push(task);
    }

    fn send(&self, _: &Arc<Provider>, _: Call, _: Duration) -> Sending {
        self.sent.set(self.sent.get() + 1);
        let reply = self.reply().map(|text| {
            let body = text.as_bytes().to_vec();
            Received { status: 200, headers: Vec::new(), body }
        });
        let turns = Rc::new(Cell::new(self.draws.borrow_mut().below(4)));
        Box::pin(async move {
            poll_fn(|context| match turns.replace(turns.get().saturating_sub(1)) {
                0 => Poll::Ready(()),
                _ => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
            })
            .await;
            reply
        })
    }
}

/// What the ledger says of purchases, in its order.
#[derive(Default)]
pub struct Budget {
    asked: u64,
    open: HashSet<PurchaseId>,
    /// By provider: the newest day that was paid for, and how much of its cap is used.
    days: HashMap<String, (u32, i64)>,
    /// On which day a purchase counts.
    counted: HashMap<PurchaseId, u32>,
    /// What providers said to a request; the last answer counts.
    said: HashMap<[u8; 16], Outcome>,
    answers: Vec<Answer>,
}

impl Budget {
    pub fn ask(&mut self, asking: &Asking) {
        self.asked += 1;
        assert!(self.open.insert(asking.id()), "asked twice under one number");
        let (day, spent) = self.days.entry(asking.provider.clone()).or_default();
        // A clock that is put back opens no second budget.
        if beijing_day(asking.at_ms) > *day {
            (*day, *spent) = (beijing_day(asking.at_ms), 0);
        }
        *spent += asking.most.0;
        self.counted.insert(asking.id(), *day);
        let cap = CAPS.iter().find(|(name, _)| *name == asking.provider).map_or(0, |(_, cap)| *cap);
        assert!(*spent <= cap * 1_000_000, "{} crossed its cap: {spent}", asking.provider);
    }

    pub fn end(&mut self, bought: &Bought) {
        let id = bought.asking.id();
        assert!(self.open.remove(&id), "bought without having asked");
        assert!(bought.ending != Ending::Free || bought.cost == Credits::ZERO);
        if let Some((day, spent)) = self.days.get_mut(&bought.asking.provider)
            && self.counted.remove(&id) == Some(*day)
        {
            *spent -= bought.asking.most.0 - bought.cost.0;
        }
        if let Some(outcome) = bought.outcome {
            self.said.insert(id.0, outcome);
        }
    }

    /// An answer about what no account of record has.
    pub fn answer(&mut self, answer: &Answer) {
        self.answers.push(answer.clone());
    }

    /// What was answered is what was bought, or it is free; and no call came before it was on the disk.
    pub fn check(&mut self, sent: u64) {
        assert!(self.asked >= sent, "{sent} calls, and {} of them in the ledger", self.asked);
        for answer in self.answers.drain(..) {
            match answer.outcome {
                Outcome::SourceBusy | Outcome::AttemptsExceeded => assert_eq!(answer.charged, Credits::ZERO),
                outcome => assert_eq!(self.said.get(&answer.request), Some(&outcome), "nobody said so"),
            }
        }
    }

    /// After a start every purchase has its end.
    pub fn nothing_is_open(&self) {
        assert!(self.open.is_empty(), "purchases without an end: {}", self.open.len());
    }
}
