/** VXLAN links, and the endpoints on them. */
export { createVxlan, type CreatedVxlan } from './create.js'
export { deleteVxlan, type VxlanName } from './delete.js'
export { Endpoints, type Endpoint, type EndpointsOptions, type EndpointsReconciliation } from './endpoints.js'
export { LinkClash, LinkDiffers, type Difference } from './errors.js'
export { listVxlan, type VxlanLink } from './link.js'
export type { VxlanOptions } from './options.js'
