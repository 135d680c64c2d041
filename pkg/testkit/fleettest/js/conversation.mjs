// Two users hold a conversation with a real client: register, room, invitation, join, messages both ways, typing, a receipt,
// a redaction, reading back, leaving. With "again" a user of an earlier run logs in and finds it all. With "sliding" they sync by sliding sync.
//
// usage: node conversation.mjs BASE_URL STATE_FILE [again] [sliding]
// Prints one line for each step; exits with 1 and says why when something is not as it should be.
import { readFileSync, writeFileSync } from "node:fs";
import { assert, login, register, run, sdk, start, timelineEvents, until } from "./common.mjs";

const [, , baseUrl, stateFile, ...flags] = process.argv;
const sliding = flags.includes("sliding");

const bodies = (client, roomId) =>
    (client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? []).filter((e) => e.getType() === "m.room.message").map((e) => e.getContent().body);

async function talk() {
    const stamp = Date.now().toString(36);
    const [a, b] = [await register(baseUrl, "alice" + stamp), await register(baseUrl, "bob" + stamp)];
    assert(a.user_id && b.user_id, "two users register");
    const [alice, bob] = [await start(a, { sliding }), await start(b, { sliding })];
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
    const session = await login({ ...a, baseUrl });
    assert(session.device_id !== a.device_id, "logging in makes a new device");
    const client = await start(session, { sliding });
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

await run(flags.includes("again") ? return_ : talk);
