// From the kernel's XFRM messages to records: what a dump, an answer or an event shows of a state or a policy.
#pragma once

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

  [[nodiscard]] const std::vector<std::byte>& records() const { return records_; }
  void clear() { records_.clear(); }

 private:
  bool decodeState(Bytes payload);
  bool decodePolicy(Bytes payload);
  bool collect(Bytes attributes);
  [[nodiscard]] bool wantsPolicy() const;
  void putCipher(StateRecord& state);
  void putAuth(StateRecord& state);
  void putReplay();
  void putTail();
  void putAttribute(std::uint16_t type, Bytes payload);
  template <typename T>
  void putValue(std::uint16_t type, const T& value) {
    putAttribute(type, bytesOf(value));
  }
  void finish(std::size_t start);

  static constexpr std::size_t kTypes = 64;  // more than XFRMA_MAX, so that a newer kernel's are kept too

  Tables& tables_;
  Options options_;
  std::vector<std::byte> records_;
  Bytes found_[kTypes];  // payloads of the present message's attributes, by type
};

}  // namespace xfrmesh
