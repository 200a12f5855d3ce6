// What every script is given, and how it reports.
import assert from 'node:assert/strict'
import { createRemoteJWKSet, jwtVerify } from 'jose'

export const { ISSUER, DOCUMENT, CLIENT_ID, CLIENT_SECRET, RESOURCE, SCOPE, OTHER_SCOPE, PLAIN_ID, PLAIN_SECRET, MCP_RESOURCE, MCP_SCOPE } = process.env

// KEYED_ID has a key and takes the assertions of RFC 10070 alone; OLDER_ID has the same key and takes those of before, too.
export const { KEYED_ID, OLDER_ID } = process.env
export const KEY = JSON.parse(process.env.KEY_JWK)

// What an assertion says of itself by RFC 10070.
export const assertionType = 'client-authentication+jwt'

export const openID = DOCUMENT === 'openid-configuration'

// Verifies an access token as a resource server does, with jose, and returns its claims.
export async function verify(metadata, token, audience, scope) {
  const keys = createRemoteJWKSet(new URL(metadata.jwks_uri))
  const { payload } = await jwtVerify(token, keys, { issuer: ISSUER, audience, typ: 'at+jwt' })
  assert.equal(payload.scope, scope)
  return payload
}

// Reports that the reader has read the metadata and got a token, which was verified. It is the row of the table.
export function report(reader) {
  console.log([reader, 'yes', 'yes'].join('\t'))
}
