//! Which node gets the next request. Pure: the time comes in.
//!
//! One node is used until it fails, so that one connection serves; then the next one is tried at once. A node that
//! failed three times in a row is out: it is only asked whether it lives, after a second, then two, and so on up to a
//! minute. The times shrink again only when it has answered a real request.

use std::time::{Duration, Instant};

/// Failures in a row after which a node is out.
const FAILURES: u32 = 3;
const PROBE_FIRST: Duration = Duration::from_secs(1);
const PROBE_LONGEST: Duration = Duration::from_secs(60);

/// The nodes of one cluster and their health.
#[derive(Debug)]
pub struct Nodes {
    nodes: Vec<Node>,
    current: usize,
    /// Nodes that failed since the last success: when all have, it is time to wait.
    tried: usize,
}

#[derive(Debug, Clone)]
struct Node {
    failures: u32,
    /// Not before this time.
    rest: Option<Instant>,
    probe_after: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Send to this node.
    Send(usize),
    /// Ask this node whether it lives.
    Probe(usize),
    /// No node may be used until then.
    Wait(Instant),
}

impl Nodes {
    /// So many nodes, all of them well.
    pub fn new(count: usize) -> Nodes {
        let well = Node { failures: 0, rest: None, probe_after: PROBE_FIRST };
        Nodes { nodes: vec![well; count.max(1)], current: 0, tried: 0 }
    }

    /// The node to use now.
    pub fn next(&mut self, now: Instant) -> Next {
        let count = self.nodes.len();
        let order: Vec<usize> = (0..count).map(|step| (self.current + step) % count).collect();
        let resting = |node: &Node| node.rest.is_some_and(|rest| rest > now);
        let find = |out: bool| {
            let fits = |node: &Node| (node.failures >= FAILURES) == out && !resting(node);
            order.iter().copied().find(|&index| self.nodes.get(index).is_some_and(fits))
        };
        if let Some(index) = find(false) {
            self.current = index;
            return Next::Send(index);
        }
        if let Some(index) = find(true) {
            return Next::Probe(index);
        }
        let earliest = self.nodes.iter().filter_map(|node| node.rest).min();
        Next::Wait(earliest.unwrap_or(now))
    }

    /// The node gave an answer of its own, not just a sign of life.
    pub fn note_good(&mut self, index: usize) {
        self.tried = 0;
        if let Some(node) = self.nodes.get_mut(index) {
            *node = Node { failures: 0, rest: None, probe_after: PROBE_FIRST };
        }
    }

    /// The node failed; it rests for `pause` (zero if nobody said how long). Whether another node may be tried at once:
    /// if not, all of them have failed in turn.
    pub fn note_bad(&mut self, index: usize, now: Instant, pause: Duration) -> bool {
        let count = self.nodes.len();
        self.tried = self.tried.saturating_add(1);
        if let Some(node) = self.nodes.get_mut(index) {
            node.failures = node.failures.saturating_add(1);
            let mut rest = pause;
            if node.failures >= FAILURES {
                rest = rest.max(node.probe_after);
                node.probe_after = node.probe_after.saturating_mul(2).min(PROBE_LONGEST);
            }
            node.rest = (rest > Duration::ZERO).then(|| now + rest);
        }
        self.current = (index + 1) % count;
        let another = self.tried < count;
        if !another {
            self.tried = 0;
        }
        another
    }

    /// Somebody cannot wait, or something was mended: no node rests any longer.
    pub fn forgive(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.rest = None);
    }

    /// The answer to the question whether a node lives that is out.
    pub fn note_probe(&mut self, index: usize, now: Instant, alive: bool) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        if alive {
            // One more failure, and it is out again, for longer.
            node.failures = FAILURES - 1;
            node.rest = None;
            return;
        }
        node.rest = Some(now + node.probe_after);
        node.probe_after = node.probe_after.saturating_mul(2).min(PROBE_LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_node_hands_over_at_once_and_all_failing_means_waiting() {
        let now = Instant::now();
        let mut nodes = Nodes::new(2);
        assert_eq!(nodes.next(now), Next::Send(0));
        assert!(nodes.note_bad(0, now, Duration::ZERO));
        assert_eq!(nodes.next(now), Next::Send(1));
        assert!(!nodes.note_bad(1, now, Duration::ZERO));
        assert_eq!(nodes.next(now), Next::Send(0));
        nodes.note_good(0);
        assert_eq!(nodes.next(now), Next::Send(0));
    }

    #[test]
    fn three_failures_put_a_node_out_and_it_is_asked_ever_later() {
        let mut now = Instant::now();
        let mut nodes = Nodes::new(1);
        for _ in 0..3 {
            assert_eq!(nodes.next(now), Next::Send(0));
            assert!(!nodes.note_bad(0, now, Duration::ZERO));
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let later = now + Duration::from_secs(seconds);
            assert_eq!(nodes.next(now), Next::Wait(later));
            now = later;
            assert_eq!(nodes.next(now), Next::Probe(0));
            nodes.note_probe(0, now, false);
        }
        now += PROBE_LONGEST;
        nodes.note_probe(0, now, true);
        assert_eq!(nodes.next(now), Next::Send(0));
        // It lives, but fails: out again, and for as long as before.
        nodes.note_bad(0, now, Duration::ZERO);
        assert_eq!(nodes.next(now), Next::Wait(now + PROBE_LONGEST));
        nodes.note_good(0);
        assert_eq!(nodes.next(now), Next::Send(0));
    }

    #[test]
    fn a_node_that_asked_for_a_pause_gets_it_while_another_works() {
        let now = Instant::now();
        let mut nodes = Nodes::new(2);
        let pause = Duration::from_secs(30);
        assert!(nodes.note_bad(0, now, pause));
        assert_eq!(nodes.next(now), Next::Send(1));
        assert!(!nodes.note_bad(1, now, pause));
        assert_eq!(nodes.next(now), Next::Wait(now + pause));
        assert_eq!(nodes.next(now + pause), Next::Send(0));
    }
}
