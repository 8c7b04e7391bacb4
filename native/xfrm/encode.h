// From records to the kernel's XFRM messages (linux/xfrm.h).
#pragma once

#include <optional>
#include <span>

#include "netlink/message.h"
#include "record.h"
#include "xfrm/tables.h"

namespace xfrmesh {

// A record in a buffer: its head, and its tail of attributes.
struct RecordView {
  Bytes head;
  Bytes tail;
  [[nodiscard]] Operation operation() const;
  [[nodiscard]] StateRecord state() const { return load<StateRecord>(head); }
  [[nodiscard]] PolicyRecord policy() const { return load<PolicyRecord>(head); }
};

// Takes the first record off `records`; nothing if what is there is no record: a length out of bounds, an unknown
// operation, an attribute that overruns the tail, an index beyond the tables, a family that is neither.
std::optional<RecordView> takeRecord(Bytes& records, const Tables& tables);

// The record that was taken there before.
RecordView viewAt(Bytes records, std::size_t start);

// The message that carries out a record. 0 if `room` is too small.
std::size_t encodeRecord(const RecordView& record, const Tables& tables, std::uint16_t flags, std::uint32_t sequence,
                         std::span<std::byte> room);

// The payload of the message that asks for the object a record names (XFRM_MSG_GETSA, XFRM_MSG_GETPOLICY), and its
// type.
std::size_t encodeGet(const RecordView& record, std::uint16_t flags, std::uint32_t sequence, std::span<std::byte> room);

}  // namespace xfrmesh
