// Opens a page in Chromium, lets it call the issuer, and prints the results and what the browser has blocked.
import { chromium } from 'playwright-core'

const { CHROMIUM, PAGE, ISSUER, CLIENT_ID, CLIENT_SECRET, SCOPE, FILES } = process.env
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-dev-shm-usage'] })
try {
  const page = await browser.newPage()
  const blocked = []
  page.on('console', (message) => blocked.push(message.text()))
  await page.goto(PAGE)
  await page.waitForFunction(() => globalThis.callIssuer !== undefined)
  const results = await page.evaluate((settings) => globalThis.callIssuer(settings),
    { issuer: ISSUER, id: CLIENT_ID, secret: CLIENT_SECRET, scope: SCOPE, files: FILES })
  console.log(JSON.stringify({ browser: browser.version(), results, blocked: blocked.filter((text) => text.includes('CORS')).length }))
} finally {
  await browser.close()
}
