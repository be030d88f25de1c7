//! Boots, marks of *gone* and the fence, where the failure detector is wrong about live members: one key, a network that is torn in two and
//! becomes whole again, processes that restart in their pods, and members declared gone before their boot was ever heard.
//!
//! A pod's place is its number; all serve; the key is the first present pod's in `prefer`. A claim is answered under the claimer's very view.
//! Checked when the network is whole, and nothing is left to be heard, claimed or cleared: of two processes that were authorities for the key
//! at the same time at least one has been lost; all hold one view; the key has one authority; everybody is cleared.
use std::collections::{HashMap, VecDeque};

const PODS: usize = 3;
/// Boots 1 to 4; 0 is unknown.
const BOOTS: usize = 5;
/// Declarers: a pod's process each.
const WHO: usize = PODS * BOOTS;
const NONE: u8 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `unheard` marks name their declarer, and last until a process of the pod that was cleared by nobody yet answers them.
    Answered,
    /// A deliberate mistake, and the rule until now: `gone` at boot 0, of which the greater boot wins.
    OlderMarkHides,
    /// A deliberate mistake: one mark at an unknown boot per pod, whoever put it.
    OneMarkForAll,
    /// A deliberate mistake: a process that was cleared answers, and goes on.
    ClearedAnswers,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct View {
    boots: [u8; PODS],
    gone: [u8; PODS],
    /// Of a pod, by declarer: NONE, 0 (not answered), or the boot that answered.
    unheard: [[u8; WHO]; PODS],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process { boot: u8, view: View, cleared_by: u8, cleared: bool, authority: bool }

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State { at: [Process; PODS], side: u8, tears: u8, restarts: u8, clash: [u8; PODS] }

#[derive(Clone, Copy, Debug)]
pub enum Step { Hear(usize, usize), Clear(usize, usize), Declare(usize, usize), Restart(u8), Tear(u8), Heal }

pub struct Scenario {
    pub name: &'static str,
    pub rule: Rule,
    /// Who is first asked for the key.
    prefer: [usize; PODS],
    /// One side of each cut there may be, as a set.
    cuts: &'static [u8],
    tears: u8,
    /// Pods whose processes end and start again in one step, and how often that happens.
    together: &'static [u8],
    restarts: u8,
    /// Everybody knows everybody; of the pods in the set an earlier boot was declared gone.
    known: Option<u8>,
}

impl View {
    fn empty() -> Self { Self { boots: [0; PODS], gone: [NONE; PODS], unheard: [[NONE; WHO]; PODS] } }

    fn merge(&mut self, other: &Self) {
        let up = |a: &mut u8, b: u8| if b != NONE && (*a == NONE || *a < b) { *a = b };
        for p in 0..PODS {
            up(&mut self.boots[p], other.boots[p]);
            up(&mut self.gone[p], other.gone[p]);
            for w in 0..WHO { up(&mut self.unheard[p][w], other.unheard[p][w]) }
        }
    }

    /// Is whoever is known of this pod lost?
    fn is_gone(&self, p: usize, boot: u8) -> bool {
        let declared = self.gone[p] != NONE && (self.gone[p] >= boot || self.gone[p] == 0);
        declared || self.boots[p] > boot || self.unheard[p].contains(&0)
    }

    fn present(&self) -> u8 { (0..PODS).filter(|p| !self.is_gone(*p, self.boots[*p])).map(|p| 1 << p).sum() }
}

impl Scenario {
    pub fn init(&self) -> State {
        let view = |p: usize| { let mut v = View::empty(); v.boots[p] = 1; v };
        let mut at = [0, 1, 2].map(|p| Process { boot: 1, view: view(p), cleared_by: 0, cleared: false, authority: false });
        if let Some(lost) = self.known {
            let mut v = View::empty();
            for p in 0..PODS { if lost >> p & 1 == 1 { (v.boots[p], v.gone[p]) = (2, 1) } else { v.boots[p] = 1 } }
            for (p, process) in at.iter_mut().enumerate() {
                *process = Process { boot: v.boots[p], view: v, cleared_by: 7, cleared: true, authority: p == self.prefer[0] };
            }
        }
        State { at, side: 0, tears: 0, restarts: 0, clash: [0; PODS] }
    }

    fn reach(&self, s: &State, p: usize, q: usize) -> bool { (s.side >> p & 1) == (s.side >> q & 1) }

    /// Are those who hear nothing of the other side, as far as this process has heard of them, more than half of the present?
    fn is_majority(&self, s: &State, p: usize) -> bool {
        let v = &s.at[p].view;
        let votes = (0..PODS).filter(|q| v.present() >> q & 1 == 1 && v.boots[*q] != 0 && self.reach(s, p, *q)).count();
        votes * 2 > v.present().count_ones() as usize
    }

    fn owner(&self, v: &View) -> Option<usize> { self.prefer.into_iter().find(|p| v.present() >> p & 1 == 1) }

    pub fn steps(&self, s: &State) -> Vec<Step> {
        let mut steps = vec![];
        for p in 0..PODS {
            for q in (0..PODS).filter(|q| *q != p) {
                let (a, b) = (&s.at[p], &s.at[q]);
                let present = a.view.present();
                if self.reach(s, p, q) {
                    let mut merged = a.view;
                    merged.merge(&b.view);
                    if merged != a.view { steps.push(Step::Hear(p, q)) }
                    if present >> q & 1 == 1 && a.cleared_by >> q & 1 == 0 && a.view == b.view { steps.push(Step::Clear(p, q)) }
                } else if present >> q & 1 == 1 && self.is_majority(s, p) { steps.push(Step::Declare(p, q)) }
            }
        }
        // Not after the last heal: see the README.
        if s.restarts < self.restarts && (s.side != 0 || s.tears < self.tears) { steps.extend(self.together.iter().map(|set| Step::Restart(*set))) }
        if s.side != 0 { steps.push(Step::Heal) } else if s.tears < self.tears { steps.extend(self.cuts.iter().map(|side| Step::Tear(*side))) }
        steps
    }

    /// The next process in a pod. None: more boots than the model has.
    fn start(&self, s: &mut State, p: usize, fenced: bool) -> Option<()> {
        let before = s.at[p].boot;
        if before as usize + 1 >= BOOTS { return None }
        let mut view = View::empty();
        view.boots[p] = before + 1;
        if fenced && self.rule == Rule::OlderMarkHides { view.gone[p] = before }
        s.at[p] = Process { boot: before + 1, view, cleared_by: 0, cleared: false, authority: false };
        s.clash[p] = 0;
        for clash in &mut s.clash { *clash &= !(1 << p) }
        self.adopt(s, p)
    }

    /// What follows from a process's view.
    fn adopt(&self, s: &mut State, p: usize) -> Option<()> {
        let (boot, fresh) = (s.at[p].boot, !s.at[p].cleared);
        if self.rule != Rule::OlderMarkHides && (fresh || self.rule == Rule::ClearedAnswers) {
            for mark in &mut s.at[p].view.unheard[p] { if *mark == 0 { *mark = boot } }
        }
        let lost = s.at[p].view.is_gone(p, boot);
        if lost { return self.start(s, p, true) }
        s.at[p].cleared_by &= 1 << p;
        s.at[p].authority &= self.owner(&s.at[p].view) == Some(p);
        self.hold(s, p);
        Some(())
    }

    /// Cleared by all who are present?
    fn hold(&self, s: &mut State, p: usize) {
        s.at[p].cleared_by |= 1 << p;
        let present = s.at[p].view.present();
        if s.at[p].cleared_by & present != present { return }
        s.at[p].cleared = true;
        if self.owner(&s.at[p].view) == Some(p) && !s.at[p].authority {
            s.at[p].authority = true;
            for q in (0..PODS).filter(|q| *q != p) {
                if s.at[q].authority { s.clash[p] |= 1 << q; s.clash[q] |= 1 << p }
            }
        }
    }

    /// None: beyond what the model has.
    pub fn apply(&self, s: &State, step: Step) -> Option<State> {
        let mut n = s.clone();
        match step {
            Step::Hear(p, q) => { let theirs = n.at[q].view; n.at[p].view.merge(&theirs); self.adopt(&mut n, p)? }
            Step::Clear(p, q) => { n.at[p].cleared_by |= 1 << q; self.hold(&mut n, p) }
            Step::Declare(p, q) => {
                let boot = n.at[p].view.boots[q];
                let who = match self.rule { Rule::OneMarkForAll => 0, _ => p * BOOTS + n.at[p].boot as usize };
                let mut mark = View::empty();
                if boot == 0 && self.rule != Rule::OlderMarkHides { mark.unheard[q][who] = 0 } else { mark.gone[q] = boot }
                let before = n.at[p].view;
                n.at[p].view.merge(&mark);
                if n.at[p].view == before { return None }
                self.adopt(&mut n, p)?
            }
            Step::Restart(set) => { n.restarts += 1; for p in (0..PODS).filter(|p| set >> p & 1 == 1) { self.start(&mut n, p, false)? } }
            Step::Tear(side) => { n.side = side; n.tears += 1 }
            Step::Heal => n.side = 0,
        }
        Some(n)
    }

    /// Nothing left but faults, and the network whole: what must hold.
    fn at_rest(&self, s: &State) -> Result<(), String> {
        if let Some(p) = s.clash.iter().position(|clash| *clash != 0) {
            return Err(format!("pod {p} and pods {:#b} were authorities at the same time, and none was lost", s.clash[p]));
        }
        if s.at.iter().any(|a| a.view != s.at[0].view) { return Err("two views".into()) }
        if s.at.iter().any(|a| !a.cleared) { return Err("a process that is never cleared".into()) }
        let authorities = s.at.iter().filter(|a| a.authority).count();
        if authorities == 1 { Ok(()) } else { Err(format!("{authorities} authorities")) }
    }
}

pub struct Report { pub states: usize, pub finals: usize, pub beyond: usize, pub complete: bool, pub bad: Option<(String, Vec<String>)> }

/// Breadth first, every state.
pub fn bfs(sc: &Scenario, limit: usize) -> Report {
    let mut report = Report { states: 0, finals: 0, beyond: 0, complete: true, bad: None };
    let first = sc.init();
    let mut seen: HashMap<State, Option<(State, String)>> = HashMap::from([(first.clone(), None)]);
    let mut queue = VecDeque::from([first]);
    while let Some(s) = queue.pop_front() {
        report.states += 1;
        if report.states >= limit { report.complete = false; break }
        let steps = sc.steps(&s);
        let at_rest = s.side == 0 && steps.iter().all(|step| matches!(step, Step::Restart(_) | Step::Tear(_)));
        if at_rest {
            report.finals += 1;
            if let Err(why) = sc.at_rest(&s) {
                let (mut trace, mut now) = (vec![], s);
                while let Some((before, step)) = &seen[&now] { trace.push(step.clone()); now = before.clone() }
                trace.reverse();
                report.bad = Some((why, trace));
                break
            }
        }
        for step in steps {
            match sc.apply(&s, step) {
                None => report.beyond += 1,
                Some(n) => if !seen.contains_key(&n) { seen.insert(n.clone(), Some((s.clone(), format!("{step:?}")))); queue.push_back(n) },
            }
        }
    }
    report
}

const ONE: &[u8] = &[1, 2, 4];
const TWO: &[u8] = &[6];

fn scenario(name: &'static str, known: Option<u8>, (cuts, tears): (&'static [u8], u8), (together, restarts): (&'static [u8], u8)) -> Scenario {
    Scenario { name, rule: Rule::Answered, prefer: [0, 1, 2], cuts, tears, together, restarts, known }
}

/// What is explored.
pub fn all() -> Vec<Scenario> {
    vec![
        scenario("marks/known", Some(0), (ONE, 1), (ONE, 2)),
        scenario("marks/known, 0 restarted before", Some(1), (ONE, 1), (ONE, 2)),
        scenario("marks/known, all restarted before", Some(7), (ONE, 1), (ONE, 2)),
        scenario("marks/cold", None, (ONE, 1), (ONE, 2)),
        scenario("marks/known, torn twice", Some(1), (&[1], 2), (TWO, 2)),
    ]
}

/// A deliberate mistake each.
pub fn mutants() -> Vec<Scenario> {
    let known = || scenario("marks/known, 0 restarted before", Some(1), (ONE, 1), (ONE, 2));
    let twice = || scenario("marks/known, torn twice", Some(1), (&[1], 2), (TWO, 2));
    vec![
        Scenario { rule: Rule::OlderMarkHides, ..known() },
        Scenario { rule: Rule::ClearedAnswers, ..known() },
        Scenario { rule: Rule::OneMarkForAll, ..twice() },
        // No mistake but the known gap.
        scenario("marks/forgotten", Some(0), (ONE, 1), (ONE, 3)),
    ]
}
