//! DescribeAcls, CreateAcls and DeleteAcls (keys 29 to 31), versions 1 to 3. KIP-140, KIP-290.
//!
//! There is no authorizer: each is answered SECURITY_DISABLED, as Kafka does without one.

use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsResponse,
};
use kafka_protocol::protocol::StrBytes;
use net::ErrorCode;

const CODE: i16 = ErrorCode::SecurityDisabled.code();
const MESSAGE: Option<StrBytes> =
    Some(StrBytes::from_static_str("No Authorizer is configured on the broker"));

pub fn describe() -> DescribeAclsResponse {
    DescribeAclsResponse::default().with_error_code(CODE).with_error_message(MESSAGE)
}

pub fn create(request: &CreateAclsRequest) -> CreateAclsResponse {
    let result = AclCreationResult::default().with_error_code(CODE).with_error_message(MESSAGE);
    CreateAclsResponse::default().with_results(vec![result; request.creations.len()])
}

pub fn delete(request: &DeleteAclsRequest) -> DeleteAclsResponse {
    let result =
        DeleteAclsFilterResult::default().with_error_code(CODE).with_error_message(MESSAGE);
    DeleteAclsResponse::default().with_filter_results(vec![result; request.filters.len()])
}
