//! Members of one consumer group: they join, share the partitions, commit what they own, beat,
//! and leave in order or without a word.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use net::client::Client;
use rt::Shard;

use crate::admin::read_offset;
use crate::history::Shared;
use crate::offsets::Owners;
use crate::wire::{self, Broken, Place, NO_ERROR, PLACES};

/// The group of all members.
pub const GROUP: &str = "m";
pub const SESSION_MS: i32 = 1000;
const REBALANCE_MS: i32 = 1500;
const BEAT: Duration = Duration::from_millis(200);

const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

/// What a member goes on with after an answer.
enum Next {
    /// The generation is over: join again.
    Rejoin,
    /// It is no member any more: join as a new one.
    Forget,
    Finish,
}

struct Member {
    shard: Shard,
    history: Shared,
    id: StrBytes,
    founded: bool,
}

/// What a member was assigned.
struct Membership {
    generation: i32,
    places: Vec<Place>,
}

pub async fn run(shard: Shard, address: SocketAddr, history: Shared) {
    let mut member =
        Member { shard: shard.clone(), history: history.clone(), id: "".into(), founded: false };
    loop {
        let mut client = wire::connect(&shard, address).await;
        match member.life(&mut client).await {
            Ok(()) => break,
            Err(Broken) => shard.sleep(Duration::from_millis(30)).await,
        }
        if shard.random().is_multiple_of(4) {
            // A crash: its session ends, or somebody new comes before that.
            member.id = "".into();
            shard.sleep(Duration::from_millis(shard.random() % (2 * SESSION_MS as u64))).await;
        }
    }
    history.borrow_mut().finished += 1;
}

impl Member {
    async fn life(&mut self, client: &mut Client) -> Result<(), Broken> {
        if wire::coordinator(&self.shard, client, GROUP).await? != NO_ERROR {
            return Err(Broken);
        }
        self.found(client).await?;
        loop {
            if self.history.borrow().finish {
                return self.leave(client).await;
            }
            let Some(membership) = self.join(client).await? else { continue };
            match self.work(client, &membership).await? {
                Next::Rejoin => {}
                Next::Forget => self.id = "".into(),
                Next::Finish => return self.leave(client).await,
            }
            if self.shard.random().is_multiple_of(8) {
                self.leave(client).await?;
            }
        }
    }

    /// Gives the group an offset once: a group without one is forgotten when its last member has
    /// gone, and would begin again with generation 1.
    async fn found(&mut self, client: &mut Client) -> Result<(), Broken> {
        if self.founded {
            return Ok(());
        }
        let number = {
            let mut history = self.history.borrow_mut();
            let life = history.lives;
            history.offsets.attempt(GROUP, 0, 0, life)
        };
        let code = wire::commit(&self.shard, client, GROUP, None, (0, 0)).await?;
        match code {
            NO_ERROR => self.history.borrow_mut().offsets.acknowledged(GROUP, 0, number),
            // Another one has done this, and has joined.
            UNKNOWN_MEMBER => self.history.borrow_mut().offsets.refused(GROUP, 0, number),
            code => return self.refused("first commit", code),
        }
        self.founded = true;
        Ok(())
    }

    fn newest(&self) -> i32 {
        self.history.borrow().owners.newest()
    }

    /// Joins, and is told what it owns. None: to be tried again.
    async fn join(&mut self, client: &mut Client) -> Result<Option<Membership>, Broken> {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name("range".into())
            .with_metadata(Bytes::from_static(b"all"));
        let request = JoinGroupRequest::default()
            .with_group_id(wire::group_id(GROUP))
            .with_session_timeout_ms(SESSION_MS)
            .with_rebalance_timeout_ms(REBALANCE_MS)
            .with_member_id(self.id.clone())
            .with_protocol_type("consumer".into())
            .with_protocols(vec![protocol]);
        let newest = self.newest();
        let joined = wire::call(&self.shard, client, &request, 5).await?;
        match joined.error_code {
            NO_ERROR => {}
            MEMBER_ID_REQUIRED => {
                self.id = joined.member_id;
                return Ok(None);
            }
            UNKNOWN_MEMBER => {
                self.id = "".into();
                return Ok(None);
            }
            code => return self.refused("join", code).map(|()| None),
        }
        self.history.borrow_mut().check(Owners::joined(joined.generation_id, newest));
        self.id = joined.member_id.clone();
        self.sync(client, &joined).await
    }

    async fn sync(
        &mut self,
        client: &mut Client,
        joined: &JoinGroupResponse,
    ) -> Result<Option<Membership>, Broken> {
        let generation = joined.generation_id;
        let request = SyncGroupRequest::default()
            .with_group_id(wire::group_id(GROUP))
            .with_generation_id(generation)
            .with_member_id(self.id.clone())
            .with_assignments(assign(joined));
        let newest = self.newest();
        let synced = wire::call(&self.shard, client, &request, 3).await?;
        match synced.error_code {
            NO_ERROR => {}
            REBALANCE_IN_PROGRESS | ILLEGAL_GENERATION => return Ok(None),
            UNKNOWN_MEMBER => {
                self.id = "".into();
                return Ok(None);
            }
            code => return self.refused("sync", code).map(|()| None),
        }
        let places: Vec<Place> = synced.assignment.iter().map(|byte| Place::from(*byte)).collect();
        let mut history = self.history.borrow_mut();
        history.check(Owners::granted("an assignment", generation, newest));
        let outcome = history.owners.assigned(generation, &self.id, &places);
        history.check(outcome);
        Ok(Some(Membership { generation, places }))
    }

    /// Commits on from where the group stands, and beats, until the generation ends.
    async fn work(&self, client: &mut Client, membership: &Membership) -> Result<Next, Broken> {
        let mut positions = Vec::new();
        for place in &membership.places {
            let from = read_offset(&self.shard, client, &self.history, GROUP, *place).await?;
            positions.push((*place, from.max(0)));
        }
        loop {
            for (place, position) in &mut positions {
                if self.shard.random().is_multiple_of(2) {
                    continue;
                }
                *position += 1 + (self.shard.random() % 5) as i64;
                let code = self.commit(client, membership.generation, *place, *position).await?;
                if let Some(next) = after(code) {
                    return Ok(next);
                }
            }
            if self.history.borrow().finish {
                return Ok(Next::Finish);
            }
            self.shard.sleep(BEAT).await;
            let code = self.beat(client, membership.generation).await?;
            if let Some(next) = after(code) {
                return Ok(next);
            }
            match self.shard.random() % 40 {
                // A crash without a word.
                0 => return Err(Broken),
                // Asleep for so long that the session ends.
                1 => self.shard.sleep(Duration::from_millis(2 * SESSION_MS as u64)).await,
                2 => return Ok(Next::Rejoin),
                _ => {}
            }
        }
    }

    async fn commit(
        &self,
        client: &mut Client,
        generation: i32,
        place: Place,
        offset: i64,
    ) -> Result<i16, Broken> {
        let (newest, number) = {
            let mut history = self.history.borrow_mut();
            let life = history.lives;
            (history.owners.newest(), history.offsets.attempt(GROUP, place, offset, life))
        };
        let membership = Some((generation, &*self.id));
        let code = wire::commit(&self.shard, client, GROUP, membership, (place, offset)).await?;
        let mut history = self.history.borrow_mut();
        match code {
            NO_ERROR => {
                history.check(Owners::granted("a commit", generation, newest));
                history.offsets.acknowledged(GROUP, place, number);
            }
            ILLEGAL_GENERATION | UNKNOWN_MEMBER | REBALANCE_IN_PROGRESS => {
                history.offsets.refused(GROUP, place, number);
            }
            code => {
                drop(history);
                self.refused("commit of a member", code)?;
            }
        }
        Ok(code)
    }

    async fn beat(&self, client: &mut Client, generation: i32) -> Result<i16, Broken> {
        let request = HeartbeatRequest::default()
            .with_group_id(wire::group_id(GROUP))
            .with_generation_id(generation)
            .with_member_id(self.id.clone());
        let newest = self.newest();
        let code = wire::call(&self.shard, client, &request, 3).await?.error_code;
        match code {
            NO_ERROR => {
                let outcome = Owners::granted("a heartbeat", generation, newest);
                self.history.borrow_mut().check(outcome);
            }
            ILLEGAL_GENERATION | UNKNOWN_MEMBER | REBALANCE_IN_PROGRESS => {}
            code => self.refused("heartbeat", code)?,
        }
        Ok(code)
    }

    async fn leave(&mut self, client: &mut Client) -> Result<(), Broken> {
        if self.id.is_empty() {
            return Ok(());
        }
        let id = std::mem::take(&mut self.id);
        let member = MemberIdentity::default().with_member_id(id);
        let request = LeaveGroupRequest::default()
            .with_group_id(wire::group_id(GROUP))
            .with_members(vec![member]);
        wire::call(&self.shard, client, &request, 3).await.map(|_| ())
    }

    fn refused(&self, what: &str, code: i16) -> Result<(), Broken> {
        self.history.borrow_mut().refused = format!("{what}: {code}");
        Err(Broken)
    }
}

fn after(code: i16) -> Option<Next> {
    match code {
        NO_ERROR => None,
        UNKNOWN_MEMBER => Some(Next::Forget),
        _ => Some(Next::Rejoin),
    }
}

/// The leader deals the partitions out; nobody else has a say.
fn assign(joined: &JoinGroupResponse) -> Vec<SyncGroupRequestAssignment> {
    let count = joined.members.len();
    let mut assignments = Vec::with_capacity(count);
    for (at, member) in joined.members.iter().enumerate() {
        let own = (0..PLACES).filter(|place| place % count == at).map(|place| place as u8);
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(member.member_id.clone())
            .with_assignment(own.collect::<Vec<u8>>().into());
        assignments.push(assignment);
    }
    assignments
}
