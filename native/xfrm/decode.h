// From the kernel's XFRM messages to records: what a dump, an answer or an event shows of a state or a policy.
#pragma once

#include <linux/xfrm.h>

#include <array>
#include <vector>

#include "netlink/message.h"
#include "record.h"
#include "xfrm/tables.h"

namespace xfrmesh {

class RecordDecoder {
 public:
  struct Options {
    std::uint32_t reqid = 0;  // only states of this reqid, and policies with a template of it; 0: all
    // With counters, times and replay state, which change by themselves. Without them two records are equal byte by
    // byte if and only if they mean the same.
    bool details = false;
  };

  RecordDecoder(Tables& tables, Options options) : tables_(tables), options_(options) {}

  // Appends the state or policy of a message (XFRM_MSG_NEWSA, UPDSA, NEWPOLICY, UPDPOLICY), unless it is filtered out.
  // False if the message is malformed. Other messages are passed over.
  bool decode(const Message& message);

  // Appends what an event tells of (XFRM_MSG_* as multicast), as a record whose operation is an Event. False if the
  // message is malformed. Events of other kinds are passed over.
  bool decodeEvent(const Message& message);
  // Appends Event::kLost.
  void putLost();

  [[nodiscard]] const std::vector<std::byte>& records() const { return records_; }
  void clear() { records_.clear(); }

 private:
  bool decodeState(Bytes payload);
  bool decodePolicy(Bytes payload);
  bool decodeDeletedState(Bytes payload);
  bool decodeDeletedPolicy(Bytes payload);
  bool decodeExpiredState(Bytes payload);
  bool decodeExpiredPolicy(Bytes payload);
  bool decodeFlushedStates(Bytes payload);
  bool decodeFlushedPolicies(Bytes payload);
  bool decodeMapping(Bytes payload);
  bool decodeAcquire(Bytes payload);
  // What follows the fixed part of a message; false if it is malformed.
  bool collect(Bytes payload, std::size_t fixed);
  // Append the record of a state or policy whose attributes were collected; what is put next goes into its tail, up to
  // finish().
  std::size_t beginState(const xfrm_usersa_info& info);
  std::size_t beginPolicy(const xfrm_userpolicy_info& info);
  std::size_t beginHead(Bytes head);
  // Of the record that starts there.
  void setEvent(std::size_t start, Event event);
  [[nodiscard]] bool wantsPolicy() const;
  void putCipher(StateRecord& state);
  void putAuth(StateRecord& state);
  void forgetReplay(std::size_t size);
  void putTail();
  void putAttribute(std::uint16_t type, Bytes payload);
  template <typename T>
  void putValue(std::uint16_t type, const T& value) {
    putAttribute(type, bytesOf(value));
  }
  void finish(std::size_t start);

  // Whether the present message has an attribute.
  [[nodiscard]] bool has(std::uint16_t type) const { return ((present_ >> type) & 1) != 0; }
  // Its payload; nothing, where it has none.
  [[nodiscard]] Bytes found(std::uint16_t type) const { return has(type) ? found_[type] : Bytes{}; }

  static constexpr std::size_t kTypes = 64;  // more than XFRMA_MAX, so that a newer kernel's are kept too

  Tables& tables_;
  Options options_;
  std::vector<std::byte> records_;
  // The types of the present message's attributes, a bit each, and the payloads of these alone.
  std::uint64_t present_ = 0;
  static_assert(kTypes == 8 * sizeof present_);
  std::array<Bytes, kTypes> found_;
};

}  // namespace xfrmesh
