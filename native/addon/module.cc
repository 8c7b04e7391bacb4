#include <napi.h>

#include <array>
#include <cstring>
#include <functional>

#include "addon/masquerade_jobs.h"
#include "addon/socket_object.h"
#include "addon/values.h"
#include "netlink/secret_room.h"
#include "netlink/used_memory.h"
#include "nft/transaction.h"
#include "record.h"
#include "route/decode.h"
#include "route/encode.h"
#include "xfrm/decode.h"
#include "xfrm/encode.h"

namespace xfrmesh {
namespace {

// An attribute holds 64 KiB at most, and a state has three that may.
constexpr std::size_t kLargestMessage = 256U << 10;
constexpr std::size_t kLargestNeighbour = 256;

#define FIELD(object, record, field) object.Set(#field, static_cast<double>(offsetof(record, field)))

// Where the fields of records are, as the compiler sees it: a test holds lib/kernel to it.
Napi::Value layout(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto state = Napi::Object::New(env);
  FIELD(state, StateRecord, length);
  FIELD(state, StateRecord, operation);
  FIELD(state, StateRecord, family);
  FIELD(state, StateRecord, protocol);
  FIELD(state, StateRecord, mode);
  FIELD(state, StateRecord, destination);
  FIELD(state, StateRecord, source);
  FIELD(state, StateRecord, spi);
  FIELD(state, StateRecord, reqid);
  FIELD(state, StateRecord, flags);
  FIELD(state, StateRecord, replayWindow);
  FIELD(state, StateRecord, salted);
  FIELD(state, StateRecord, cipher);
  FIELD(state, StateRecord, cipherAlgorithm);
  FIELD(state, StateRecord, icvBits);
  FIELD(state, StateRecord, cipherKey);
  FIELD(state, StateRecord, authAlgorithm);
  FIELD(state, StateRecord, authTruncateBits);
  FIELD(state, StateRecord, authKey);
  FIELD(state, StateRecord, reserved);
  auto policy = Napi::Object::New(env);
  FIELD(policy, PolicyRecord, length);
  FIELD(policy, PolicyRecord, operation);
  FIELD(policy, PolicyRecord, family);
  FIELD(policy, PolicyRecord, direction);
  FIELD(policy, PolicyRecord, action);
  FIELD(policy, PolicyRecord, destination);
  FIELD(policy, PolicyRecord, source);
  FIELD(policy, PolicyRecord, destinationPort);
  FIELD(policy, PolicyRecord, destinationPortMask);
  FIELD(policy, PolicyRecord, sourcePort);
  FIELD(policy, PolicyRecord, sourcePortMask);
  FIELD(policy, PolicyRecord, destinationPrefix);
  FIELD(policy, PolicyRecord, sourcePrefix);
  FIELD(policy, PolicyRecord, protocol);
  FIELD(policy, PolicyRecord, flags);
  FIELD(policy, PolicyRecord, interfaceIndex);
  FIELD(policy, PolicyRecord, priority);
  FIELD(policy, PolicyRecord, index);
  FIELD(policy, PolicyRecord, share);
  FIELD(policy, PolicyRecord, reserved);
  FIELD(policy, PolicyRecord, user);
  auto transaction = Napi::Object::New(env);
  FIELD(transaction, TransactionRecord, length);
  FIELD(transaction, TransactionRecord, type);
  FIELD(transaction, TransactionRecord, flags);
  FIELD(transaction, TransactionRecord, family);
  FIELD(transaction, TransactionRecord, kind);
  FIELD(transaction, TransactionRecord, keyBytes);
  FIELD(transaction, TransactionRecord, attributeBytes);
  FIELD(transaction, TransactionRecord, elementCount);
  FIELD(transaction, TransactionRecord, keyAt);
  auto neighbour = Napi::Object::New(env);
  FIELD(neighbour, NeighbourRecord, length);
  FIELD(neighbour, NeighbourRecord, operation);
  FIELD(neighbour, NeighbourRecord, family);
  FIELD(neighbour, NeighbourRecord, destinationFamily);
  FIELD(neighbour, NeighbourRecord, flags);
  FIELD(neighbour, NeighbourRecord, state);
  FIELD(neighbour, NeighbourRecord, port);
  FIELD(neighbour, NeighbourRecord, given);
  FIELD(neighbour, NeighbourRecord, reserved);
  FIELD(neighbour, NeighbourRecord, linkAddress);
  FIELD(neighbour, NeighbourRecord, interfaceIndex);
  FIELD(neighbour, NeighbourRecord, destination);
  FIELD(neighbour, NeighbourRecord, vni);
  FIELD(neighbour, NeighbourRecord, interfaceTo);
  FIELD(neighbour, NeighbourRecord, nexthop);
  FIELD(neighbour, NeighbourRecord, padding);
  auto mapping = Napi::Object::New(env);
  FIELD(mapping, MappingTail, source);
  FIELD(mapping, MappingTail, port);
  FIELD(mapping, MappingTail, knownPort);
  auto acquire = Napi::Object::New(env);
  FIELD(acquire, AcquireTail, destination);
  FIELD(acquire, AcquireTail, source);
  FIELD(acquire, AcquireTail, sequence);
  FIELD(acquire, AcquireTail, protocol);
  FIELD(acquire, AcquireTail, family);
  auto all = Napi::Object::New(env);
  all.Set("mapping", mapping);
  all.Set("acquire", acquire);
  all.Set("state", state);
  all.Set("policy", policy);
  all.Set("transaction", transaction);
  all.Set("neighbour", neighbour);
  return all;
}

#undef FIELD

// Encodes record by record into `room`, and hands each message to `take`.
void eachMessage(Napi::Env env, Bytes records, const Tables& tables, std::span<std::byte> room,
                 const std::function<void(Bytes)>& take) {
  std::uint32_t sequence = 0;
  while (!records.empty()) {
    const auto record = takeRecord(records, tables);
    const std::size_t size = record ? encodeRecord(*record, tables, 0, ++sequence, room) : 0;
    if (size == 0) throw Napi::Error::New(env, "a record is malformed");
    take(Bytes(room).first(size));
  }
}

// The messages that a batch's records become, one after the other, numbered from 1.
Napi::Value encode(const Napi::CallbackInfo& info) {
  const Tables tables = tablesOf(info[1], info[2]);
  const Bytes records = bytesOfArray(info[0]);
  SecretRoom room(kLargestMessage);
  // Once to know how long the messages are, once to write them where they stay: they hold keys.
  std::size_t length = 0;
  eachMessage(info.Env(), records, tables, room.all(), [&](Bytes message) { length += message.size(); });
  auto messages = Napi::Uint8Array::New(info.Env(), length);
  std::uint8_t* to = messages.Data();
  eachMessage(info.Env(), records, tables, room.all(), [&](Bytes message) {
    std::memcpy(to, message.data(), message.size());
    to += message.size();
  });
  return messages;
}

// The records of the states and policies that messages describe.
Napi::Value decode(const Napi::CallbackInfo& info) {
  Tables tables;
  RecordDecoder decoder(tables, {.reqid = 0, .details = info[1].As<Napi::Boolean>().Value()});
  Bytes messages = bytesOfArray(info[0]);
  Message message{};
  while (takeMessage(messages, message)) {
    if (!decoder.decode(message)) throw Napi::Error::New(info.Env(), "a message is malformed");
  }
  auto value = Napi::Object::New(info.Env());
  setRecords(info.Env(), value, decoder.records(), tables);
  return value;
}

// The messages that a transaction's records become, numbered from 1.
Napi::Value encodeNft(const Napi::CallbackInfo& info) {
  const auto held = heldComments(info[2]);
  const auto transaction = encodeTransaction(bytesOfArray(info[0]), 1, info[1].As<Napi::Number>().Uint32Value(), false,
                                             held ? HeldComments(*held) : HeldComments());
  if (!transaction) throw Napi::Error::New(info.Env(), "a record is malformed");
  return copyOf(info.Env(), transaction->bytes);
}

// The messages that records of neighbours become, numbered from 1.
Napi::Value encodeNeighbours(const Napi::CallbackInfo& info) {
  Bytes records = bytesOfArray(info[0]);
  std::vector<std::byte> messages;
  std::array<std::byte, kLargestNeighbour> room{};
  std::uint32_t sequence = 0;
  while (!records.empty()) {
    const auto record = takeNeighbour(records);
    if (!record) throw Napi::Error::New(info.Env(), "a record is malformed");
    const std::size_t size = encodeNeighbour(*record, 0, ++sequence, room);
    messages.insert(messages.end(), room.begin(), room.begin() + static_cast<std::ptrdiff_t>(size));
  }
  return copyOf(info.Env(), messages);
}

// The records of the entries that messages describe.
Napi::Value decodeNeighbours(const Napi::CallbackInfo& info) {
  NeighbourDecoder decoder;
  Bytes messages = bytesOfArray(info[0]);
  Message message{};
  while (takeMessage(messages, message)) {
    if (!decoder.decode(message)) throw Napi::Error::New(info.Env(), "a message is malformed");
  }
  return copyOf(info.Env(), decoder.records());
}

Napi::Value dropUsedMemory(const Napi::CallbackInfo& info) {
  takeUsedMemory();
  return info.Env().Undefined();
}

Napi::Object exportAll(Napi::Env env, Napi::Object exports) {
  exports.Set("Socket", SocketObject::define(env));
  exports.Set("newSlices", Napi::Function::New(env, newSlices, "newSlices"));
  exports.Set("newLedger", Napi::Function::New(env, newLedger, "newLedger"));
  exports.Set("layout", Napi::Function::New(env, layout, "layout"));
  exports.Set("encode", Napi::Function::New(env, encode, "encode"));
  exports.Set("decode", Napi::Function::New(env, decode, "decode"));
  exports.Set("encodeNeighbours", Napi::Function::New(env, encodeNeighbours, "encodeNeighbours"));
  exports.Set("decodeNeighbours", Napi::Function::New(env, decodeNeighbours, "decodeNeighbours"));
  exports.Set("dropUsedMemory", Napi::Function::New(env, dropUsedMemory, "dropUsedMemory"));
  exports.Set("encodeTransaction", Napi::Function::New(env, encodeNft, "encodeTransaction"));
  return exports;
}

}  // namespace
}  // namespace xfrmesh

// The macro wants a name it can paste.
static Napi::Object Init(Napi::Env env, Napi::Object exports) { return xfrmesh::exportAll(env, exports); }
NODE_API_MODULE(NODE_GYP_MODULE_NAME, Init)
