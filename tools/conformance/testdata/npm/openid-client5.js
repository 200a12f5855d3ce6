// openid-client 5, which most of its users still have, against the issuer of the environment.
import assert from 'node:assert/strict'
import { Issuer, errors } from 'openid-client5'
import { CLIENT_ID, CLIENT_SECRET, DOCUMENT, ISSUER, KEY, KEYED_ID, OLDER_ID, OTHER_SCOPE, RESOURCE, SCOPE, openID, report, verify } from './environment.js'

// Given the issuer alone, it looks for the document of OpenID Connect first and appends RFC 8414's to the path.
const { origin, pathname } = new URL(ISSUER)
const issuer = await Issuer.discover(openID ? ISSUER : `${origin}/.well-known/${DOCUMENT}${pathname.replace(/\/$/, '')}`)
assert.equal(issuer.metadata.issuer, ISSUER)

for (const method of ['client_secret_basic', 'client_secret_post']) {
  const client = (secret) => new issuer.Client({ client_id: CLIENT_ID, client_secret: secret, token_endpoint_auth_method: method })
  const answer = await client(CLIENT_SECRET).grant({ grant_type: 'client_credentials', scope: SCOPE, resource: RESOURCE })
  assert.equal(answer.scope, SCOPE)
  assert(answer.expires_in > 3590)
  const claims = await verify(issuer.metadata, answer.access_token, RESOURCE, SCOPE)
  assert.equal(claims.client_id, CLIENT_ID)

  const refused = (code) => (error) => error instanceof errors.OPError && error.error === code
  await assert.rejects(client('wrong').grant({ grant_type: 'client_credentials', scope: SCOPE }), refused('invalid_client'))
  await assert.rejects(client(CLIENT_SECRET).grant({ grant_type: 'client_credentials', scope: OTHER_SCOPE }), refused('invalid_scope'))
}

// By a key: its assertions have no type and several audiences.
const byKey = (id) => new issuer.Client({ client_id: id, token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'ES256' }, { keys: [KEY] })
  .grant({ grant_type: 'client_credentials', scope: SCOPE, resource: RESOURCE })
assert.equal((await byKey(OLDER_ID)).scope, SCOPE)
await assert.rejects(byKey(KEYED_ID), (error) => error instanceof errors.OPError && error.error === 'invalid_client')
report('openid-client 5')
