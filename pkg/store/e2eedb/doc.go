// Package e2eedb holds the SQL of end-to-end encryption: keys of devices and users, messages to devices, dehydrated devices, and key
// backups. It has the row types that a proposal writes, the readers, and the multi-row writers that store/commitdb calls. It takes no
// decisions.
//
// All of it belongs to the shard of its user. What belongs to a device goes with the device, whose row package accountdb owns. A
// [Reader] is safe for concurrent use if what it was given is. It is imported by services, store/commitdb and the composition root.
package e2eedb
