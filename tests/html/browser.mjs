// Opens pages in headless Chromium over its debugging pipe and prints what it finds, as JSON. Needs no package.
//
//   node browser.mjs DIRECTORY_FOR_PICTURES all|load AXE_SOURCE|- FILE...
//
// `load` measures the loading alone, for pages of which a browser needs minutes to draw every view.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [pictures, mode, axePath, ...files] = process.argv.slice(2);
const axe = axePath === '-' ? null : readFileSync(axePath, 'utf8');
const profile = mkdtempSync(join(tmpdir(), 'bindscope-chromium-'));
const chromium = spawn('chromium', [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-extensions', '--no-first-run', '--hide-scrollbars',
  `--user-data-dir=${profile}`, '--remote-debugging-pipe', 'about:blank',
], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });

let number = 0;
let rest = '';
const waiting = new Map();
const events = [];
let onEvent = () => {};
chromium.stdio[4].setEncoding('utf8');
chromium.stdio[4].on('data', (text) => {
  rest += text;
  const messages = rest.split('\0');
  rest = messages.pop();
  for (const message of messages.map((one) => JSON.parse(one))) {
    if (message.id) {
      const { resolve, reject } = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.error) reject(new Error(JSON.stringify(message.error)));
      else resolve(message.result);
    } else {
      events.push(message);
      onEvent(message);
    }
  }
});
const send = (method, params = {}, sessionId = undefined) => new Promise((resolve, reject) => {
  number += 1;
  waiting.set(number, { resolve, reject });
  chromium.stdio[3].write(`${JSON.stringify({ id: number, method, params, sessionId })}\0`);
});

async function look(file) {
  const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
  const call = (method, params) => send(method, params, sessionId);
  events.length = 0;
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await call(`${domain}.enable`);
  // Time of the processor, whatever else runs on the machine.
  await call('Performance.enable', { timeDomain: 'threadTicks' });
  const url = pathToFileURL(file).href;
  const loaded = new Promise((resolve) => {
    onEvent = (event) => { if (event.method === 'Page.loadEventFired') resolve(); };
  });
  await call('Page.navigate', { url });
  await loaded;
  // A frame is painted.
  await call('Page.captureScreenshot', { format: 'png' });
  const { metrics } = await call('Performance.getMetrics');
  const metric = (name) => metrics.find((one) => one.name === name).value;
  const value = async (expression) => {
    const { result, exceptionDetails } =
      await call('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return result.value;
  };
  const found = {
    main_thread_seconds: metric('TaskDuration'),
    rows: await value('document.querySelectorAll("tbody tr").length'),
    elements: await value('document.querySelectorAll("*").length'),
    scripts: await value('document.querySelectorAll("script,iframe,object,embed,img,link,base,form").length'),
    handlers: await value('[...document.querySelectorAll("*")].flatMap((one) => [...one.attributes]).filter((one) => one.name.startsWith("on") || one.name === "style").length'),
    text: await value('document.body.textContent'),
    styled: await value('getComputedStyle(document.body).maxWidth'),
    views: {},
  };
  const views = [
    ['light', 1300, 'light', 'screen'], ['dark', 1300, 'dark', 'screen'], ['narrow', 360, 'light', 'screen'],
    ['wide', 1600, 'light', 'screen'], ['print', 1120, 'light', 'print'],
  ];
  for (const [name, width, scheme, media] of mode === 'all' ? views : views.slice(0, 1)) {
    await call('Emulation.setDeviceMetricsOverride', { width, height: 900, deviceScaleFactor: 1, mobile: false });
    await call('Emulation.setEmulatedMedia', { media, features: [{ name: 'prefers-color-scheme', value: scheme }] });
    const { data } = await call('Page.captureScreenshot', { format: 'png' });
    const path = join(pictures, `${basename(file, '.html')}-${name}.png`);
    writeFileSync(path, Buffer.from(data, 'base64'));
    found.views[name] = {
      picture: path,
      clipped: await value('document.documentElement.scrollWidth - document.documentElement.clientWidth'),
      background: await value('getComputedStyle(document.body).backgroundColor'),
      foreground: await value('getComputedStyle(document.body).color'),
      // Texts of the picture that reach beyond it or beyond their box.
      outside: await value(`[...document.querySelectorAll("svg.pic text")].filter((text) => {
        const inner = text.getBoundingClientRect(), outer = text.ownerSVGElement.getBoundingClientRect();
        return inner.right > outer.right + 1 || inner.left < outer.left - 1 || inner.bottom > outer.bottom + 1;
      }).map((text) => text.textContent)`),
    };
    if (axe && (name === 'light' || name === 'dark')) {
      await value(`${axe}; undefined`);
      found.views[name].axe = await value(`axe.run(document, { resultTypes: ['violations'] }).then((done) =>
        done.violations.map((one) => one.id + ': ' + one.help + ': ' + one.nodes.slice(0, 3).map((node) => node.html).join(' | ')))`);
    }
  }
  if (mode === 'all') {
    await call('Emulation.setEmulatedMedia', { media: '', features: [] });
    const { data } = await call('Page.printToPDF', { preferCSSPageSize: true, printBackground: true });
    const pdf = Buffer.from(data, 'base64').toString('latin1');
    found.pages = (pdf.match(/\/Type\s*\/Page\b(?!s)/g) ?? []).length;
  }
  found.console = events.filter((event) => ['Log.entryAdded', 'Runtime.consoleAPICalled', 'Runtime.exceptionThrown'].includes(event.method))
    .map((event) => JSON.stringify(event.params));
  found.requests = events.filter((event) => event.method === 'Network.requestWillBeSent')
    .map((event) => event.params.request.url).filter((one) => one !== url);
  await send('Target.closeTarget', { targetId });
  return found;
}

try {
  const found = {};
  for (const file of files) found[basename(file)] = await look(file);
  process.stdout.write(JSON.stringify(found));
} finally {
  chromium.kill('SIGKILL');
  await new Promise((resolve) => chromium.once('close', resolve));
  rmSync(profile, { recursive: true, force: true });
}
