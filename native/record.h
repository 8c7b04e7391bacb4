// Records: how batches cross from TypeScript, and how dumps go back. One buffer of self-delimiting records in host byte
// order, each a header, a fixed head, and a tail of netlink attributes (struct nlattr, XFRMA_*), ascending by type and
// padded to eight bytes. lib/kernel/records.ts knows the same offsets; a test compares them with layout().
//
// What holds secrets is not in a record: keys and algorithm names stand in side tables and are named by index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace xfrmesh {

enum class Operation : std::uint8_t {
  kAddState = 1,      // XFRM_MSG_NEWSA
  kUpdateState = 2,   // XFRM_MSG_UPDSA
  kDeleteState = 3,   // XFRM_MSG_DELSA
  kAddPolicy = 4,     // XFRM_MSG_NEWPOLICY
  kUpdatePolicy = 5,  // XFRM_MSG_UPDPOLICY
  kDeletePolicy = 6,  // XFRM_MSG_DELPOLICY
};

struct StateRecord {
  std::uint32_t length;  // of the whole record, tail included; a multiple of eight
  Operation operation;
  std::uint8_t family;           // AF_INET or AF_INET6
  std::uint8_t protocol;         // IPPROTO_ESP …
  std::uint8_t mode;             // XFRM_MODE_*
  std::uint8_t destination[16];  // as xfrm_address_t: IPv4 in the first four bytes, the rest zero
  std::uint8_t source[16];
  std::uint32_t spi;  // host byte order, as every integer here
  std::uint32_t reqid;
  std::uint8_t flags;              // XFRM_STATE_*
  std::uint8_t replayWindow;       // the old field, 0 to 32; larger ones are an XFRMA_REPLAY_ESN_VAL in the tail
  std::uint8_t salted;             // 1: the cipher's key is followed by the SPI, big-endian, as salt
  std::uint8_t cipher;             // Cipher
  std::uint16_t cipherAlgorithm;   // index of its name
  std::uint16_t icvBits;           // aead: length of the integrity check value
  std::uint32_t cipherKey;         // index, or kNoKey, or kWithheldKey
  std::uint16_t authAlgorithm;     // index, or kNoAlgorithm
  std::uint16_t authTruncateBits;  // 0: the algorithm's own (XFRMA_ALG_AUTH); else XFRMA_ALG_AUTH_TRUNC
  std::uint32_t authKey;
  std::uint32_t reserved;
};

struct PolicyRecord {
  std::uint32_t length;
  Operation operation;
  std::uint8_t family;
  std::uint8_t direction;        // XFRM_POLICY_IN, OUT, FWD
  std::uint8_t action;           // XFRM_POLICY_ALLOW, BLOCK
  std::uint8_t destination[16];  // the selector's, with its prefix length below
  std::uint8_t source[16];
  std::uint16_t destinationPort;
  std::uint16_t destinationPortMask;
  std::uint16_t sourcePort;
  std::uint16_t sourcePortMask;
  std::uint8_t destinationPrefix;
  std::uint8_t sourcePrefix;
  std::uint8_t protocol;  // IPPROTO_*; 0 any
  std::uint8_t flags;     // XFRM_POLICY_*
  std::int32_t interfaceIndex;
  std::uint32_t priority;
  std::uint32_t index;  // the kernel's own; only in dumps with details
  std::uint8_t share;
  std::uint8_t reserved[3];
  std::uint32_t user;
};

enum class Cipher : std::uint8_t { kNone = 0, kAead = 1, kEncryption = 2 };

inline constexpr std::uint32_t kNoKey = 0xffffffff;
// The kernel did not say the key: all its bytes are zero, as a kernel in lockdown (confidentiality) dumps them.
inline constexpr std::uint32_t kWithheldKey = 0xfffffffe;
inline constexpr std::uint16_t kNoAlgorithm = 0xffff;

// What a record from a monitor bears in place of an operation. The first six are operations, as somebody did them.
enum class Event : std::uint8_t {
  kStateAdded = 1,
  kStateUpdated = 2,
  kStateDeleted = 3,
  kPolicyAdded = 4,
  kPolicyUpdated = 5,
  kPolicyDeleted = 6,
  kStatesFlushed = 7,    // a StateRecord with the protocol alone; 255: of any
  kPoliciesFlushed = 8,  // a PolicyRecord, XFRMA_POLICY_TYPE in the tail
  kStateExpired = 9,     // kTailHard in the tail
  kPolicyExpired = 10,   // likewise
  kMapping = 11,         // a StateRecord, its source the one known; kTailMapping in the tail
  kAcquire = 12,         // the PolicyRecord that asked; the flow as kTailSelector, and kTailAcquire in the tail
  kLost = 13,            // a StateRecord of zeros: the receive buffer overran, events before the next one are missing
};

// Tail attributes that are no attributes in the kernel's messages, but parts of its fixed structures.
enum TailType : std::uint16_t {
  kTailLifetime = 0x1001,    // struct xfrm_lifetime_cfg; left out where nothing is limited
  kTailSelector = 0x1002,    // struct xfrm_selector of a state; left out where it selects all
  kTailCurrent = 0x1003,     // struct xfrm_lifetime_cur; dumps with details
  kTailStatistics = 0x1004,  // struct xfrm_stats; dumps with details
  kTailSequence = 0x1005,    // u32, xfrm_usersa_info.seq; dumps with details, where it is not 0
  kTailHard = 0x1006,        // u32, 1: it is gone; 0: it will be soon
  kTailMapping = 0x1007,     // struct MappingTail
  kTailAcquire = 0x1008,     // struct AcquireTail
};

// Where packets of an SA in UDP come from, by their own account (struct xfrm_user_mapping).
struct MappingTail {
  std::uint8_t source[16];
  std::uint16_t port;
  std::uint16_t knownPort;
};

// The SA that is wanted (struct xfrm_user_acquire).
struct AcquireTail {
  std::uint8_t destination[16];
  std::uint8_t source[16];
  std::uint32_t sequence;
  std::uint16_t protocol;
  std::uint16_t family;  // of the two addresses: a template's need not be its policy's
};

inline constexpr std::size_t kRecordAlign = 8;
inline constexpr std::size_t kHeadBytes = 72;
static_assert(sizeof(StateRecord) == kHeadBytes && sizeof(PolicyRecord) == kHeadBytes);
static_assert(std::is_trivially_copyable_v<StateRecord> && std::is_trivially_copyable_v<PolicyRecord>);

inline bool isPolicy(Operation operation) { return operation >= Operation::kAddPolicy; }

}  // namespace xfrmesh
