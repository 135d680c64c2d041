// Two users hold a conversation with a real client: register, room, invitation, join, messages both ways, typing, a receipt,
// a redaction, reading back, leaving. With "again" as second argument, a user of an earlier run logs in and finds it all.
//
// usage: node conversation.mjs BASE_URL STATE_FILE [again]
// Prints one line for each step; exits with 1 and says why when something is not as it should be.
import { readFileSync, writeFileSync } from "node:fs";
import * as sdk from "matrix-js-sdk";

// The client uses this of the language; older runtimes do not have it.
Promise.withResolvers ??= function () {
    let resolve, reject;
    const promise = new Promise((a, b) => ([resolve, reject] = [a, b]));
    return { promise, resolve, reject };
};
// The client says much; the steps below are what is to be seen.
const say = (text) => process.stdout.write(text + "\n");
for (const level of ["log", "info", "debug", "warn", "error", "trace"]) console[level] = () => {};

const [, , baseUrl, stateFile, again] = process.argv;
const patience = 30_000;

function assert(ok, what) {
    if (!ok) throw new Error("not so: " + what);
    say("ok: " + what);
}

// until resolves with the first truthy value of check, looked at whenever one of the client's events comes.
function until(client, events, check, what) {
    return new Promise((resolve, reject) => {
        const look = () => {
            let v;
            try {
                v = check();
            } catch (e) {
                return done(reject, e);
            }
            if (v) done(resolve, v);
        };
        const timer = setTimeout(() => done(reject, new Error("in vain waited for: " + what)), patience);
        const poll = setInterval(look, 250);
        function done(f, v) {
            clearTimeout(timer);
            clearInterval(poll);
            for (const e of events) client.off(e, look);
            f(v);
        }
        for (const e of events) client.on(e, look);
        look();
    });
}

const timelineEvents = [sdk.RoomEvent.Timeline, sdk.RoomEvent.Redaction, sdk.ClientEvent.Room];

async function register(name) {
    const anonymous = sdk.createClient({ baseUrl });
    const password = "correct horse " + name;
    const answer = await anonymous.registerRequest({ username: name, password, auth: { type: "m.login.dummy" } });
    return { name, password, ...answer };
}

async function start(session) {
    const client = sdk.createClient({
        baseUrl, accessToken: session.access_token, userId: session.user_id, deviceId: session.device_id,
    });
    await client.startClient({ initialSyncLimit: 20, lazyLoadMembers: true });
    await until(client, [sdk.ClientEvent.Sync], () => client.isInitialSyncComplete(), "the first sync of " + session.user_id);
    return client;
}

const bodies = (client, roomId) =>
    (client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? []).filter((e) => e.getType() === "m.room.message").map((e) => e.getContent().body);

async function talk() {
    const stamp = Date.now().toString(36);
    const [a, b] = [await register("alice" + stamp), await register("bob" + stamp)];
    assert(a.user_id && b.user_id, "two users register");
    const [alice, bob] = [await start(a), await start(b)];
    assert(true, "both have synced");

    const { room_id: roomId } = await alice.createRoom({ name: "Loom", preset: sdk.Preset.PrivateChat, invite: [b.user_id] });
    await until(bob, [sdk.RoomEvent.MyMembership, sdk.ClientEvent.Room], () => bob.getRoom(roomId)?.getMyMembership() === "invite", "the invitation");
    assert(true, "the invitation arrives through sync");
    await bob.joinRoom(roomId);
    await until(alice, [sdk.RoomStateEvent.Members], () => alice.getRoom(roomId)?.getMember(b.user_id)?.membership === "join", "bob's joining");
    assert(true, "the joining arrives through sync");

    for (let i = 0; i < 15; i++) {
        const [from, to] = i % 2 ? [bob, alice] : [alice, bob];
        await from.sendTextMessage(roomId, "message " + i);
        await until(to, timelineEvents, () => bodies(to, roomId).includes("message " + i), "message " + i);
    }
    assert(true, "fifteen messages arrive, both ways");
    assert(new Set(bodies(bob, roomId)).size === bodies(bob, roomId).length, "none is doubled");

    await alice.sendTyping(roomId, true, 10_000);
    await until(bob, [sdk.RoomMemberEvent.Typing], () => bob.getRoom(roomId).getMember(a.user_id)?.typing, "typing");
    assert(true, "typing arrives");

    const last = bob.getRoom(roomId).getLiveTimeline().getEvents().at(-1);
    await bob.sendReadReceipt(last);
    await until(alice, [sdk.RoomEvent.Receipt], () => alice.getRoom(roomId).getEventReadUpTo(b.user_id) === last.getId(), "the receipt");
    assert(true, "the receipt arrives");

    const { event_id: gone } = await alice.sendTextMessage(roomId, "to be taken back");
    await until(bob, timelineEvents, () => bob.getRoom(roomId).findEventById(gone), "the message to be taken back");
    await alice.redactEvent(roomId, gone, undefined, { reason: "a slip" });
    await until(bob, timelineEvents, () => bob.getRoom(roomId).findEventById(gone).isRedacted(), "the redaction");
    assert(true, "the redaction arrives");

    await alice.sendStateEvent(roomId, "m.room.topic", { topic: "warp and weft" }, "");
    await until(bob, [sdk.RoomStateEvent.Events], () =>
        bob.getRoom(roomId).currentState.getStateEvents("m.room.topic", "")?.getContent().topic === "warp and weft", "the topic");
    assert(true, "a state change arrives");

    await bob.setDisplayName("Bobbin");
    await until(alice, [sdk.RoomStateEvent.Members], () => alice.getRoom(roomId).getMember(b.user_id).rawDisplayName === "Bobbin", "the new name");
    assert(true, "a new display name arrives");
    alice.stopClient();
    bob.stopClient();
    writeFileSync(stateFile, JSON.stringify({ a, b, roomId, count: 15 }));
}

async function return_() {
    const { a, roomId, count } = JSON.parse(readFileSync(stateFile, "utf8"));
    const anonymous = sdk.createClient({ baseUrl });
    const session = await anonymous.loginRequest({
        type: "m.login.password", identifier: { type: "m.id.user", user: a.name }, password: a.password,
    });
    assert(session.device_id !== a.device_id, "logging in makes a new device");
    const client = await start(session);
    const room = client.getRoom(roomId);
    assert(room?.getMyMembership() === "join", "the room is still there");
    for (let i = 0; i < 20 && bodies(client, roomId).length < count; i++) await client.scrollback(room, 5);
    const found = bodies(client, roomId).filter((b) => b?.startsWith("message "));
    assert(JSON.stringify(found) === JSON.stringify(Array.from({ length: count }, (_, i) => "message " + i)),
        "reading back finds every message once and in order");
    assert(room.currentState.getStateEvents("m.room.topic", "")?.getContent().topic === "warp and weft", "the state is still there");
    await client.leave(roomId);
    client.stopClient();
    await client.logout(true);
    assert(true, "leaving and logging out");
}

try {
    await (again === "again" ? return_() : talk());
    process.exit(0);
} catch (e) {
    process.stderr.write((e.stack ?? e) + "\n");
    process.exit(1);
}
