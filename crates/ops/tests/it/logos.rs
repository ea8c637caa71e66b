//! Tests of logos.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat};
use waypost_core::Code;
use waypost_core::organization::Role;
use waypost_ops::logos;

use crate::account_test::{AccountTest, set_up_accounts};

async fn logos_are_set_returned_and_deleted(test: AccountTest) {
    let (ops, org) = (&test.fixture.ops, &test.one.organization.id);
    let (cx, page) = (&test.fixture.cx, test.client_context(&test.one));
    let mut jpeg = Vec::new();
    DynamicImage::new_rgb8(600, 300).write_to(&mut Cursor::new(&mut jpeg), ImageFormat::Jpeg).unwrap();
    assert_eq!(logos::find_public(&page, ops, org).await.unwrap(), None);
    assert_eq!(logos::get_branding(&page, ops, org).await.unwrap().logo, None);
    let member = test.fixture.member_context(org, Role::Member);
    assert_eq!(logos::set(&member, ops, org, jpeg.clone()).await.unwrap_err().code, Code::Forbidden);
    for _ in 0..2 {
        logos::set(cx, ops, org, jpeg.clone()).await.unwrap();
    }
    let png = logos::find_public(&page, ops, org).await.unwrap().unwrap();
    assert_eq!(image::guess_format(&png).unwrap(), ImageFormat::Png);
    let branding = logos::get_branding(&page, ops, org).await.unwrap();
    assert_eq!((branding.name.as_str(), branding.logo), ("one", Some(cx.now())));
    let other_page = test.client_context(&test.two);
    assert_eq!(logos::find_public(&other_page, ops, org).await.unwrap_err().code, Code::NotFound);
    assert_eq!(logos::find_public(&other_page, ops, &test.two.organization.id).await.unwrap(), None);
    let error = logos::set(cx, ops, org, b"<svg/>".to_vec()).await.unwrap_err();
    assert!(error.message.contains("SVG"), "{error}");
    logos::delete(cx, ops, org).await.unwrap();
    logos::delete(cx, ops, org).await.unwrap();
    assert_eq!(logos::find_public(&page, ops, org).await.unwrap(), None);
    assert_eq!(test.count_events("organization.logo").await, 3);
}

waypost_testkit::both!(extended set_up_accounts => logos_are_set_returned_and_deleted);
