// Two devices of a real client meet through the server and talk over a channel that they encrypt between themselves, as for a login by QR
// code: each reads what the other wrote, once, and hears of the end.
//
// usage: node rendezvous.mjs BASE_URL PUBLIC_URL
// PUBLIC_URL is what the server says of where it is; it is reached by BASE_URL.
import { MSC4108SecureChannel } from "matrix-js-sdk/lib/rendezvous/channels/index.js";
import { MSC4108RendezvousSession } from "matrix-js-sdk/lib/rendezvous/transports/index.js";
import { assert, register, run, sdk } from "./common.mjs";

const [, , baseUrl, publicUrl] = process.argv;
const fetchFn = (url, init) => fetch(String(url).replace(publicUrl, baseUrl), init);

async function meet() {
    const alice = await register(baseUrl, "qr" + Date.now().toString(36));
    const client = sdk.createClient({ baseUrl, accessToken: alice.access_token, userId: alice.user_id, deviceId: alice.device_id });
    const wasm = await import("@matrix-org/matrix-sdk-crypto-wasm");
    await wasm.initAsync();
    const failed = [];
    const here = new MSC4108RendezvousSession({ client, fetchFn, onFailure: (why) => failed.push(why) });
    await here.send("");
    assert(here.url.startsWith(publicUrl), "a session has an address that others reach");
    const shown = new MSC4108SecureChannel(here, undefined, (why) => failed.push(why));
    const code = wasm.QrCodeData.fromBytes(await shown.generateCode(wasm.QrCodeIntent.Login));
    assert(code.rendezvousUrl === here.url, "the code that is shown has the address");

    const there = new MSC4108RendezvousSession({ url: code.rendezvousUrl, fetchFn, onFailure: (why) => failed.push(why) });
    const scanned = new MSC4108SecureChannel(there, code.publicKey, (why) => failed.push(why));
    await Promise.all([shown.connect(), scanned.connect()]);
    assert(shown.getCheckCode() === scanned.getCheckCode(), "the two have a channel, and the same check code");
    for (const [from, to, n] of [[scanned, shown, 1], [shown, scanned, 2], [scanned, shown, 3]]) {
        await from.secureSend({ type: "m.test", n });
        assert((await to.secureReceive()).n === n, `message ${n} arrives`);
    }
    await here.close();
    assert((await there.receive()) === undefined && failed.length === 1, "the end is heard of");
    client.stopClient();
}

await run(meet);
