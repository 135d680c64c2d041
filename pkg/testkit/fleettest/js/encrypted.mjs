// Two users with two devices each hold an encrypted conversation with a real client: cross-signing is set up, devices and people verify each
// other by comparing emoji, what each device says is read by all, a third device restores the key backup and reads what was said before it
// was there, a fourth takes over what a dehydrated device was sent, and a device that was removed is sent no more keys.
//
// usage: node encrypted.mjs ALICES_BASE_URL BOBS_BASE_URL
// Prints one line for each step; exits with 1 and says why when something is not as it should be.
import { CryptoEvent, VerificationPhase, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";
import { assert, eventually, login, register, run, sdk, start, timelineEvents, until } from "./common.mjs";

const [, , alicesUrl, bobsUrl] = process.argv;

// A device is a client with what a person would keep beside it: the key of the secret storage. sent is to whom it has sent keys.
async function device(session, secrets = {}) {
    const sent = [];
    const client = await start(session, {
        fetchFn: (url, init) => {
            if (String(url).includes("/sendToDevice/m.room.encrypted/")) sent.push(JSON.parse(init.body).messages);
            return fetch(url, init);
        },
        cryptoCallbacks: {
            getSecretStorageKey: async ({ keys }) => {
                const id = Object.keys(keys).find((id) => secrets[id]);
                return id ? [id, secrets[id]] : null;
            },
            cacheSecretStorageKey: (id, _, key) => (secrets[id] = key),
        },
    }, (c) => c.initRustCrypto({ useIndexedDB: false }));
    return { client, crypto: client.getCrypto(), session, secrets, sent, id: session.device_id, user: session.user_id };
}

// requests keeps the requests for verification that come to a device.
function requests(d) {
    const came = [];
    d.client.on(CryptoEvent.VerificationRequestReceived, (r) => came.push(r));
    return came;
}

// compare has both sides of a request compare emoji, and tells what they saw.
async function compare(request, incoming) {
    await incoming.accept();
    await eventually(() => request.phase === VerificationPhase.Ready, "a request for verification being accepted");
    const first = await request.startVerification("m.sas.v1");
    const second = await eventually(() => incoming.verifier, "the verification being begun");
    const seen = [];
    const side = (verifier) => {
        verifier.on(VerifierEvent.ShowSas, (sas) => {
            seen.push(JSON.stringify(sas.sas.emoji));
            // Either says yes when both have been shown.
            void eventually(() => seen.length === 2, "both having been shown the emoji").then(() => sas.confirm());
        });
        return verifier.verify();
    };
    await Promise.all([side(first), side(second)]);
    await eventually(() => request.phase === VerificationPhase.Done && incoming.phase === VerificationPhase.Done, "the verification being done");
    return seen;
}

// knows tells whether a device has another's keys, as far as it has heard by itself.
const knows = async (d, other) => (await d.crypto.getUserDeviceInfo([other.user])).get(other.user)?.has(other.id);

async function verifyOwn(from, to) {
    const came = requests(to);
    // A request of a device that is not known yet is ignored by the client.
    await eventually(async () => await knows(from, to) && await knows(to, from), "the two devices knowing each other");
    const request = await from.crypto.requestDeviceVerification(to.user, to.id);
    const seen = await compare(request, await eventually(() => came[0], "the request at the other device"));
    assert(seen.length === 2 && seen[0] === seen[1], `two devices of ${from.session.name} see the same emoji`);
    await eventually(async () => (await from.crypto.getDeviceVerificationStatus(to.user, to.id))?.crossSigningVerified, "the new device's signature");
    await eventually(() => to.crypto.isCrossSigningReady(), "the cross-signing secrets at the new device");
    assert(true, "the verified device is signed, and is given the secrets");
}

const texts = (d, roomId) =>
    (d.client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? []).filter((e) => e.getType() === "m.room.message").map((e) => e.getContent().body);

const reads = (d, roomId, text) =>
    until(d.client, [...timelineEvents, sdk.MatrixEventEvent.Decrypted], () => texts(d, roomId).includes(text), `"${text}" at ${d.user} ${d.id}`);

async function crossSign(d) {
    const auth = { type: "m.login.password", identifier: { type: "m.id.user", user: d.user }, password: d.session.password };
    await d.crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: (make) => make(null).catch(() => make(auth)) });
    await d.crypto.bootstrapSecretStorage({
        createSecretStorageKey: () => d.crypto.createRecoveryKeyFromPassphrase(), setupNewSecretStorage: true, setupNewKeyBackup: true,
    });
    assert(await d.crypto.isCrossSigningReady() && await d.crypto.isSecretStorageReady(), `${d.session.name} has cross-signing and secret storage`);
    assert(await d.crypto.getActiveSessionBackupVersion(), `${d.session.name} has a key backup`);
}

async function talk() {
    const stamp = Date.now().toString(36);
    const accounts = [await register(alicesUrl, "alice" + stamp), await register(bobsUrl, "bob" + stamp)];
    const [alice1, bob1] = await Promise.all(accounts.map((s) => device(s)));
    await Promise.all([crossSign(alice1), crossSign(bob1)]);
    const [alice2, bob2] = await Promise.all(accounts.map(async (s) => device(await login(s))));
    const all = [alice1, alice2, bob1, bob2];
    await verifyOwn(alice1, alice2);
    await verifyOwn(bob1, bob2);

    const { room_id: roomId } = await alice1.client.createRoom({
        preset: sdk.Preset.TrustedPrivateChat, is_direct: true, invite: [bob1.user],
        initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
    });
    await until(bob1.client, [sdk.RoomEvent.MyMembership, sdk.ClientEvent.Room], () => bob1.client.getRoom(roomId)?.getMyMembership() === "invite", "the invitation");
    await bob1.client.joinRoom(roomId);
    for (const d of all) {
        await until(d.client, [sdk.RoomStateEvent.Members], () =>
            d.client.getRoom(roomId)?.getMember(bob1.user)?.membership === "join" && d.client.getRoom(roomId)?.getMember(alice1.user)?.membership === "join",
        "both being in the room, at " + d.id);
        await eventually(() => d.crypto.isEncryptionEnabledInRoom(roomId), "the room being encrypted, at " + d.id);
    }

    const came = requests(bob1);
    await eventually(async () => await knows(alice1, bob1) && await knows(bob1, alice1), "alice and bob knowing each other's devices");
    const request = await alice1.crypto.requestVerificationDM(bob1.user, roomId);
    const seen = await compare(request, await eventually(() => came[0], "the request in the room"));
    assert(seen.length === 2 && seen[0] === seen[1], "alice and bob see the same emoji");
    for (const [a, b] of [[alice1, bob1], [bob1, alice1], [alice2, bob1], [bob2, alice1]]) {
        await eventually(async () => (await a.crypto.getUserVerificationStatus(b.user)).isCrossSigningVerified(), `${b.user} being verified at ${a.id}`);
    }
    assert(true, "who is verified on one device is on the others");

    // Each device speaks twice: the second time with a session that the others have.
    const said = [];
    for (let round = 1; round <= 2; round++) {
        for (const d of all) {
            said.push(`${round}: ${d.user} ${d.id}`);
            await d.client.sendTextMessage(roomId, said.at(-1));
            await Promise.all(all.map((other) => reads(other, roomId, said.at(-1))));
        }
    }
    const shown = alice1.client.getRoom(roomId).getLiveTimeline().getEvents().filter((e) => said.includes(e.getContent().body));
    assert(shown.length === said.length && shown.every((e) => e.isEncrypted()), "what any device says, encrypted, is read by all");
    for (const e of shown) {
        const info = await alice1.crypto.getEncryptionInfoForEvent(e);
        if (info.shieldColour !== 0) throw new Error(`"${e.getContent().body}" is shown with shield ${info.shieldColour}, ${info.shieldReason}`);
    }
    assert(true, "each is known to be from a verified device of a verified user");

    const backup = () => alice1.client.http.authedRequest("GET", "/room_keys/version"); // the client's own method remembers
    await eventually(async () => (await backup()).count === all.length, "the keys of four devices in the backup");
    const alice3 = await device(await login(accounts[0]), { ...alice1.secrets });
    await alice3.client.scrollback(alice3.client.getRoom(roomId), 50);
    assert(!texts(alice3, roomId).some((t) => said.includes(t)), "a new device cannot read what was said before it");
    await eventually(() => knows(alice1, alice3), "the third device being heard of");
    await alice3.crypto.bootstrapCrossSigning({});
    await alice3.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    const restored = await alice3.crypto.restoreKeyBackup();
    assert(restored.imported >= all.length, "a new device restores the key backup");
    for (const text of said) await reads(alice3, roomId, text);
    assert(true, "and reads what was said before it");
    await eventually(async () => (await alice1.crypto.getDeviceVerificationStatus(alice3.user, alice3.id))?.crossSigningVerified, "the third device's signature");

    await bob1.client.sendTextMessage(roomId, "to five devices");
    await Promise.all([...all, alice3].map((d) => reads(d, roomId, "to five devices")));
    assert(true, "a new device is given keys of what is said from then on");

    // A dehydrated device is given keys while nobody is there, and the next device takes them over.
    assert(await alice1.crypto.isDehydrationSupported(), "dehydrated devices are supported");
    await alice1.crypto.startDehydration({ createNewKey: true });
    await eventually(async () => (await bob1.crypto.getUserDeviceInfo([alice1.user])).get(alice1.user)?.size === 4, "the dehydrated device being heard of");
    await bob1.client.sendTextMessage(roomId, "to who is asleep");
    const alice4 = await device(await login(accounts[0]), { ...alice1.secrets });
    let taken = 0;
    alice4.client.on(CryptoEvent.RehydrationProgress, (keys) => (taken = keys));
    await alice4.crypto.bootstrapCrossSigning({});
    await alice4.crypto.startDehydration({ rehydrate: true });
    assert(taken > 0, "a new device takes over what was sent to the dehydrated one");
    await alice4.client.scrollback(alice4.client.getRoom(roomId), 50);
    await reads(alice4, roomId, "to who is asleep");
    alice4.client.stopClient();

    bob2.client.stopClient();
    await bob1.client.deleteDevice(bob2.id, { type: "m.login.password", identifier: { type: "m.id.user", user: bob1.user }, password: accounts[1].password });
    await eventually(async () => !(await knows(alice1, bob2)), "the removal of a device");
    const refused = await bob2.client.whoami().catch((e) => e.errcode);
    assert(refused === "M_UNKNOWN_TOKEN", "a removed device is let in no more");
    const sessions = new Set(shown.map((e) => e.getWireContent().session_id));
    alice1.sent.length = 0;
    const { event_id: last } = await alice1.client.sendTextMessage(roomId, "without the removed device");
    await Promise.all([alice1, alice2, alice3, bob1].map((d) => reads(d, roomId, "without the removed device")));
    const given = new Set(alice1.sent.flatMap((m) => Object.values(m)).flatMap((m) => Object.keys(m)));
    assert(given.has(bob1.id) && given.has(alice2.id) && !given.has(bob2.id), "a removed device is given no keys");
    const wire = alice1.client.getRoom(roomId).findEventById(last).getWireContent();
    assert(wire.session_id && !sessions.has(wire.session_id), "what is said after a removal has a new key");
    for (const d of [alice1, alice2, alice3, bob1]) d.client.stopClient();
}

await run(talk);
