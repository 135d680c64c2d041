// What the conversations have in common: the client, ready for the runtime, and ways to wait and to check.
import * as sdk from "matrix-js-sdk";
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";

export { sdk };

// The client uses this of the language; older runtimes do not have it.
Promise.withResolvers ??= function () {
    let resolve, reject;
    const promise = new Promise((a, b) => ([resolve, reject] = [a, b]));
    return { promise, resolve, reject };
};
// The client says much; the steps are what is to be seen.
const say = (text) => process.stdout.write(text + "\n");
for (const level of ["log", "info", "debug", "warn", "error", "trace"]) console[level] = () => {};

const patience = 30_000;

export function assert(ok, what) {
    if (!ok) throw new Error("not so: " + what);
    say("ok: " + what);
}

// until resolves with the first truthy value of check, looked at whenever one of the client's events comes.
export function until(client, events, check, what) {
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

// eventually resolves with the first truthy value of an asynchronous check.
export async function eventually(check, what) {
    for (const end = Date.now() + patience; Date.now() < end; ) {
        const v = await check();
        if (v) return v;
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error("in vain waited for: " + what);
}

export const timelineEvents = [sdk.RoomEvent.Timeline, sdk.RoomEvent.Redaction, sdk.ClientEvent.Room];

// register makes an account, and a session of it.
export async function register(baseUrl, name) {
    const anonymous = sdk.createClient({ baseUrl });
    const password = "correct horse " + name;
    const answer = await anonymous.registerRequest({ username: name, password, auth: { type: "m.login.dummy" } });
    return { baseUrl, name, password, ...answer };
}

// login makes another session of an account.
export async function login({ baseUrl, name, password }) {
    const anonymous = sdk.createClient({ baseUrl });
    const answer = await anonymous.loginRequest({ type: "m.login.password", identifier: { type: "m.id.user", user: name }, password });
    return { baseUrl, name, password, ...answer };
}

// slidingSync has a client sync by sliding sync: all of its rooms in one list, with their state and the latest events.
function slidingSync(client) {
    const list = { ranges: [[0, 99]], required_state: [["*", "*"]], timeline_limit: 20 };
    return new SlidingSync(client.getHomeserverUrl(), new Map([["all", list]]), { required_state: [["*", "*"]], timeline_limit: 20 }, client, 20_000);
}

// start gives a session's client that has synced, by sliding sync if sliding is set; prepare, if given, is done with it before.
export async function start(session, { sliding = false, ...options } = {}, prepare = () => {}) {
    const client = sdk.createClient({
        baseUrl: session.baseUrl, accessToken: session.access_token, userId: session.user_id, deviceId: session.device_id, ...options,
    });
    await prepare(client);
    await client.startClient(sliding ? { slidingSync: slidingSync(client) } : { initialSyncLimit: 20, lazyLoadMembers: true });
    await until(client, [sdk.ClientEvent.Sync], () => client.isInitialSyncComplete(), "the first sync of " + session.user_id);
    return client;
}

// run does a conversation and ends the program with what came of it.
export async function run(conversation) {
    try {
        await conversation();
        process.exit(0);
    } catch (e) {
        process.stderr.write((e?.stack ?? e) + "\n");
        process.exit(1);
    }
}
